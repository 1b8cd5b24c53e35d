// The answers of all cards as a CSV file.

// As `predictor classify --format csv` writes them: a row for each class, or one with an error.
const COLUMNS = ["file", "class_index", "class_id", "class_name", "probability", "error"];

export function saveCsv(cards) {
  const rows = cards.flatMap(({ file: { name: file }, settings: { model }, predictions, error }) =>
    predictions.length ? predictions.map((one) => ({ file, ...one, model })) : [{ file, error, model }],
  );
  const columns = rows.some(({ model }) => model) ? [...COLUMNS, "model"] : COLUMNS;
  const lines = rows.map((row) => columns.map((column) => cell(row[column] ?? "")).join(","));
  const text = [columns.join(","), ...lines, ""].join("\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "classes.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href));
}

function cell(value) {
  return /[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value;
}
