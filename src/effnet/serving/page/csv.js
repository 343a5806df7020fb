// Results as the text of a CSV file (RFC 4180) that a spreadsheet may open without running anything.

const MARK = "\uFEFF"; // By which spreadsheets know UTF-8.

/**
 * @param {(string | number)[][]} rows The first one holds the titles.
 * @returns {string}
 */
export function toCsv(rows) {
  return MARK + rows.map((row) => row.map(cell).join(",") + "\r\n").join("");
}

/**
 * The answers as rows: one an image and model.
 *
 * @param {{image: string, model: string, classes?: {name: string, probability: number}[], error?: string,
 *   agree?: boolean}[]} answers `agree`: whether two models name the same class, where two were asked.
 */
export function answerRows(answers) {
  const ranks = Math.max(0, ...answers.map((answer) => answer.classes?.length ?? 0));
  const isComparison = answers.some((answer) => answer.agree !== undefined);
  const titles = ["image", "model"];
  for (let rank = 1; rank <= ranks; rank++) titles.push(`class_${rank}`, `probability_${rank}`);
  if (isComparison) titles.push("agree");
  titles.push("error");
  const rows = answers.map((answer) => {
    const row = [answer.image, answer.model];
    for (let rank = 0; rank < ranks; rank++) {
      const found = answer.classes?.[rank];
      row.push(found?.name ?? "", found ? Number(found.probability.toFixed(6)) : "");
    }
    if (isComparison) row.push(answer.agree === undefined ? "" : answer.agree ? "yes" : "no");
    row.push(answer.error ?? "");
    return row;
  });
  return [titles, ...rows];
}

/** A number as it is; a text with a quote before it where a spreadsheet would take it for a formula. */
function cell(value) {
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r\n]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
