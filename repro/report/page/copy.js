// Puts a copy button on every block of code. Nothing else on this page needs a script.
const said = document.getElementById("said");
for (const code of document.querySelectorAll("pre")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.setAttribute("aria-label", "Copy " + (code.dataset.name || "this code"));
  button.onclick = async () => {
    let done = true;
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      getSelection().selectAllChildren(code);
      done = document.execCommand("copy");
    }
    button.textContent = said.textContent = done ? "Copied" : "Select it by hand";
    setTimeout(() => { button.textContent = "Copy"; said.textContent = ""; }, 2000);
  };
  const box = document.createElement("div");
  box.className = "copied";
  code.replaceWith(box);
  box.append(code, button);
}
