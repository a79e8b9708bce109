'use strict';

const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: 'base' });

function keyOf(cell) {
  const value = cell.dataset.value;
  return value === undefined ? cell.textContent.trim() : Number(value);
}

function isMissing(key) {
  return key === '' || key === '\u2013';
}

function compare(a, b, direction) {
  if (isMissing(a) || isMissing(b)) {
    return isMissing(a) - isMissing(b);  // what has no value comes last either way
  }
  const bothNumbers = typeof a === 'number' && typeof b === 'number';
  return direction * (bothNumbers ? a - b : collator.compare(a, b));
}

function sortBy(header) {
  const table = header.closest('table');
  const body = table.tBodies[0];
  const column = header.cellIndex;
  const rows = [...body.rows].map((row) => ({ row, key: keyOf(row.cells[column]) }));
  const isNumeric = rows.some(({ key }) => typeof key === 'number');
  const first = isNumeric ? 'descending' : 'ascending';
  const second = isNumeric ? 'ascending' : 'descending';
  const order = header.ariaSort === first ? second : first;
  const direction = order === 'ascending' ? 1 : -1;
  rows.sort((one, other) => compare(one.key, other.key, direction));
  body.append(...rows.map(({ row }) => row));
  for (const other of table.tHead.rows[0].cells) {
    other.ariaSort = other === header ? order : 'none';
  }
}

for (const button of document.querySelectorAll('thead button')) {
  button.addEventListener('click', () => sortBy(button.closest('th')));
}

const dialog = document.querySelector('dialog');

for (const button of document.querySelectorAll('button.zoom')) {
  button.addEventListener('click', () => {
    const small = button.querySelector('img');
    const large = dialog.querySelector('img');
    large.src = small.src;
    large.alt = small.alt;
    dialog.showModal();
  });
}

dialog.addEventListener('click', (event) => {
  if (event.target !== dialog.querySelector('button')) {
    dialog.close();
  }
});
