"use strict";
(() => {
  const table = document.getElementById("classtable");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const found = document.getElementById("found");

  const value = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent.trim();
    return cell.classList.contains("number") ? Number(text) : text;
  };

  for (const header of table.tHead.rows[0].cells) {
    header.firstElementChild.addEventListener("click", () => {
      const downwards = header.getAttribute("aria-sort") === "ascending";
      for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", downwards ? "descending" : "ascending");
      const column = header.cellIndex;
      const compare = (one, other) => {
        const [a, b] = [value(one, column), value(other, column)];
        return typeof a === "number" ? a - b : a.localeCompare(b);
      };
      rows.sort((one, other) => (downwards ? compare(other, one) : compare(one, other)));
      body.append(...rows);
    });
  }

  document.getElementById("search").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLocaleLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = !row.cells[0].textContent.toLocaleLowerCase().includes(wanted);
      shown += !row.hidden;
    }
    found.textContent = wanted ? `${shown} of ${rows.length}` : "";
  });
})();
