// The ways in which images come: dropped anywhere, chosen, pasted.

/**
 * @param {(files: File[]) => void} take
 * @param {(sentence: string) => void} complain
 */
export function listen(take, complain) {
  const hint = document.getElementById("drop-hint");
  let depth = 0; // Every element that the pointer crosses sends an enter and a leave.
  const show = (change) => {
    depth = change === 0 ? 0 : Math.max(0, depth + change);
    hint.hidden = depth === 0;
  };
  window.addEventListener("dragenter", (event) => hasFiles(event) && show(+1));
  window.addEventListener("dragleave", (event) => hasFiles(event) && show(-1));
  window.addEventListener("dragover", (event) => event.preventDefault());
  window.addEventListener("drop", async (event) => {
    event.preventDefault();
    show(0);
    const files = await dropped(event.dataTransfer);
    if (files.length) take(files);
    else complain("Only files can be dropped here. Save the picture first, then drop its file.");
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) take(files.map(pasted));
  });
  for (const id of ["files", "capture"]) {
    const input = document.getElementById(id);
    input.addEventListener("change", () => {
      if (input.files.length) take([...input.files]);
      input.value = ""; // So that the same file can be chosen again.
    });
  }
  document.getElementById("choose").addEventListener("click", () => document.getElementById("files").click());
}

const hasFiles = (event) => event.dataTransfer?.types.includes("Files");

/** Browsers call every pasted picture `image.png`. */
function pasted(file) {
  if (file.name !== "image.png") return file;
  const time = new Date().toTimeString().slice(0, 8).replaceAll(":", ".");
  return new File([file], `pasted ${time}.png`, { type: file.type });
}

/** Files as they are, and the images in folders. */
async function dropped(transfer) {
  // All entries are taken at once: the list is empty after the first await.
  const found = [...transfer.items]
    .filter((item) => item.kind === "file")
    .map((item) => ({ file: item.getAsFile(), entry: item.webkitGetAsEntry?.() }));
  const lists = await Promise.all(
    found.map(({ file, entry }) => (entry?.isDirectory ? imagesOf(entry) : file ? [file] : [])),
  );
  return lists.flat();
}

async function imagesOf(folder) {
  const reader = folder.createReader();
  const files = [];
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return files; // Browsers hand out a hundred at a time.
    for (const entry of entries) {
      if (entry.isDirectory) {
        files.push(...(await imagesOf(entry)));
        continue;
      }
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      if (file.type.startsWith("image/")) files.push(file);
    }
  }
}
