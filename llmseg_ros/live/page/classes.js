'use strict';

const chips = document.getElementById('chips');
const told = document.getElementById('told');
const names = document.getElementById('names');
const list = { key: '', open: new Set(), canEdit: true };

const ORIGINS = {
  pack: 'from a file',
  store: 'from an earlier answer',
  llm: 'from the language model',
  name: 'its name alone',
  typed: 'typed here',
};

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  if (text !== undefined) {
    made.textContent = text;
  }
  return made;
}

function button(text, label, action) {
  const made = element('button', '', text);
  made.type = 'button';
  made.setAttribute('aria-label', label);
  made.addEventListener('click', action);
  return made;
}

function summaryOf(item) {
  const summary = element('summary', '');
  const swatch = element('i', 'swatch');
  swatch.style.background = item.colour;
  summary.append(swatch, element('span', 'name', item.name));
  summary.append(element('span', 'share', ''), element('small', 'score', ''));
  return summary;
}

function subclassesOf(item) {
  const box = element('div', 'subclasses');
  const set = (subclasses) => send({ do: 'subclasses', name: item.name, names: subclasses });
  for (const subclass of item.subclasses) {
    const row = element('span', 'subclass', subclass);
    if (list.canEdit) {
      const others = item.subclasses.filter((other) => other !== subclass);
      row.append(button('×', `Drop ${subclass}`, () => set(others)));
    }
    box.append(row);
  }
  if (list.canEdit) {
    const form = element('form', 'add-subclass');
    const input = element('input', '');
    input.placeholder = 'add subclasses, …';
    input.setAttribute('aria-label', `Subclasses to add to ${item.name}`);
    form.append(input);
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      const typed = input.value.split(/[,;\n]/).filter((name) => name.trim());
      if (typed.length && set([...item.subclasses, ...typed])) {
        input.value = '';
      }
    });
    box.append(form);
  }
  return box;
}

function chipOf(item) {
  const chip = element('li', '');
  chip.dataset.id = item.id;
  const details = element('details', '');
  details.append(summaryOf(item));
  const fill = () => details.children.length > 1 || details.append(...detailsOf(item));
  if (list.open.has(item.id)) {
    details.open = true;
    fill();
  }
  details.addEventListener('toggle', () => {
    list.open[details.open ? 'add' : 'delete'](item.id);
    fill();
  });
  chip.append(details);
  return chip;
}

function detailsOf(item) {
  const about = ORIGINS[item.source] || item.source;
  const count = item.subclasses.length ? `${item.subclasses.length} subclasses, ${about}` : about;
  const origin = item.origin ? `${count}: ${item.origin}` : count;
  const actions = element('div', 'buttons');
  actions.append(button('Heat map', `Heat map of ${item.name}`, () => showHeatOf(item.id)));
  actions.append(button('Remove', `Remove ${item.name}`, () => send({ do: 'drop', name: item.name })));
  return [element('p', 'origin note', origin), subclassesOf(item), actions];
}

function fillHeatClasses(classes) {
  const chosen = heatClass.value;
  heatClass.replaceChildren(
    ...classes.map((item) => {
      const option = element('option', '', item.name);
      option.value = item.id;
      return option;
    }),
  );
  if (classes.some((item) => String(item.id) === chosen)) {
    heatClass.value = chosen;
  }
}

function draftInputs() {
  return [...chips.querySelectorAll('.add-subclass input')];
}

function chipIdOf(input) {
  return input.closest('li').dataset.id;
}

function showClasses(classes, canEdit) {
  const key = JSON.stringify([classes, canEdit]);
  if (key === list.key) {
    return;
  }
  list.key = key;
  list.canEdit = canEdit;
  look.names = new Map(classes.map((item) => [item.id, item.name]));
  const typing = document.activeElement?.closest?.('#chips li')?.dataset.id;
  const drafts = new Map(draftInputs().map((input) => [chipIdOf(input), input.value]));
  chips.replaceChildren(...classes.map(chipOf));
  for (const input of draftInputs()) {
    input.value = drafts.get(chipIdOf(input)) || '';
  }
  if (typing) {
    chips.querySelector(`li[data-id="${CSS.escape(typing)}"] input`)?.focus();
  }
  fillHeatClasses(classes);
  if (look.frame) {
    showShares(look.frame);
    draw();
  }
}

function showShares(frame) {
  const found = new Map(frame.classes.map(([id, share, score]) => [String(id), { share, score }]));
  for (const chip of chips.children) {
    const { share, score } = found.get(chip.dataset.id) || { share: 0, score: null };
    chip.classList.toggle('found', share > 0);
    chip.querySelector('.share').textContent = share > 0 ? `${(100 * share).toFixed(1)} %` : '';
    chip.querySelector('.score').textContent = score === null ? '' : `score ${score.toFixed(2)}`;
  }
}

function showNotes(sentences) {
  document.getElementById('notes').textContent = sentences.join('; ');
}

document.getElementById('add').addEventListener('submit', (event) => {
  event.preventDefault();
  if (send({ do: 'add', names: names.value })) {
    names.value = '';
  }
});

names.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && !event.shiftKey) {
    event.preventDefault();
    document.getElementById('add').requestSubmit();
  }
});
