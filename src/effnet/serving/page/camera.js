// The camera: a live view in a dialog where the browser gives one, the phone's own camera where not.

const WHY = {
  NotAllowedError: "The camera is not allowed for this page. Allow it in the browser, or choose a photo.",
  NotFoundError: "No camera was found. Choose a photo instead.",
  NotReadableError: "The camera is used by another program. Close that, or choose a photo.",
};

/** @param {(files: File[]) => void} take */
export function offerCamera(take) {
  const button = document.getElementById("camera");
  if (navigator.mediaDevices?.getUserMedia) {
    button.addEventListener("click", () => open(take));
  } else if (matchMedia("(any-pointer: coarse)").matches) {
    button.addEventListener("click", () => document.getElementById("capture").click());
  } else {
    return; // Without https, browsers give no camera but at localhost.
  }
  button.hidden = false;
}

async function open(take) {
  const [dialog, video, note] = ["camera-dialog", "view", "camera-note"].map((id) => document.getElementById(id));
  const [shutter, turn, done] = ["take", "turn", "close-camera"].map((id) => document.getElementById(id));
  let stream, facing = "environment", taken = 0;

  const stop = () => stream?.getTracks().forEach((track) => track.stop());
  const start = async () => {
    stop();
    shutter.disabled = true;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: facing, width: { ideal: 1280 } } });
      if (!dialog.open) return stop(); // It was closed while the browser asked.
      video.srcObject = stream;
      await video.play();
      const devices = await navigator.mediaDevices.enumerateDevices();
      turn.hidden = devices.filter((device) => device.kind === "videoinput").length < 2;
      shutter.disabled = false;
      shutter.focus();
    } catch (problem) {
      note.textContent = WHY[problem.name] ?? `The camera cannot be used: ${problem.message}`;
    }
  };

  note.textContent = "";
  shutter.onclick = async () => {
    taken += 1;
    note.textContent = taken === 1 ? "1 picture taken" : `${taken} pictures taken`;
    take([await still(video)]);
  };
  turn.onclick = () => {
    facing = facing === "environment" ? "user" : "environment";
    start();
  };
  done.onclick = () => dialog.close();
  dialog.onclose = () => {
    stop();
    video.srcObject = null;
  };
  dialog.showModal();
  await start();
}

async function still(video) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.95));
  const time = new Date().toTimeString().slice(0, 8).replaceAll(":", ".");
  return new File([blob], `camera ${time}.jpg`, { type: blob.type });
}
