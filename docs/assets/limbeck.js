// Formulas between \( \) and \[ \], drawn by the KaTeX in this folder: nothing comes from elsewhere.
document.addEventListener("DOMContentLoaded", () =>
  renderMathInElement(document.body, {
    delimiters: [
      { left: "\\(", right: "\\)", display: false },
      { left: "\\[", right: "\\]", display: true },
    ],
  }),
);
