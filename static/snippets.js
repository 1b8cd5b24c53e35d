// The request of a card as a curl command and as a line of Python.

export function curl(url, name, guarded) {
  // Unless the name is quoted, curl splits it at , and ; and trims it. "-" is standard input.
  const escaped = name.replace(/["\\]/g, "\\$&");
  const file = /[,;"\\]|^\s|\s$/.test(name) ? `"${escaped}"` : name === "-" ? "./-" : name;
  const token = guarded ? ' -H "Authorization: Bearer $TOKEN"' : "";
  return `curl${token} -F ${quoted(`file=@${file}`)} ${quoted(url)}`;
}

export function python(url, name, guarded) {
  const token = guarded ? ', headers={"Authorization": "Bearer " + os.environ["TOKEN"]}' : "";
  const file = `files={"file": open(${JSON.stringify(name)}, "rb")}`;
  const request = `requests.post(${JSON.stringify(url)}, ${file}${token})`;
  return `import ${guarded ? "os, " : ""}requests; print(${request}.json())`;
}

function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** Copy the text of an element, or select it: over plain HTTP a page cannot use the clipboard. */
export async function copy(element, button) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(element);
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 2000);
}
