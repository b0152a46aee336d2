// Sorts a table by the column whose head is pressed: numbers as numbers, empty cells last; pressed again, in reverse.
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", turn > 0 ? "ascending" : "descending");
    const key = row => {
      const cell = row.cells[column], number = cell.dataset.number;
      return number === undefined ? cell.textContent : Number(number);
    };
    const before = (a, b) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
      return turn * (typeof a === "number" ? a - b : a.localeCompare(b));
    };
    const keyed = [...body.rows].map(row => [key(row), row]);
    keyed.sort((a, b) => before(a[0], b[0])).forEach(pair => body.append(pair[1]));
  }));
}
