'use strict';

const sliders = document.getElementById('sliders');
const facts = document.getElementById('facts');
const pause = document.getElementById('pause');
const step = document.getElementById('step');
const SENT_EVERY_MS = 150;

// Thresholds

function sliderOf(threshold) {
  const row = element('div', 'slider');
  row.dataset.name = threshold.name;
  const label = element('label', '', threshold.name);
  const range = element('input', '');
  Object.assign(range, { type: 'range', min: threshold.low, max: threshold.high, step: 0.01 });
  const number = element('input', '');
  Object.assign(number, { type: 'number', step: 'any' });
  number.setAttribute('aria-label', `${threshold.name} as a number`);
  range.id = `range-${threshold.name}`;
  label.htmlFor = range.id;
  let waiting = 0;
  range.addEventListener('input', () => {
    number.value = range.value;
    clearTimeout(waiting);
    waiting = setTimeout(() => setThreshold(threshold.name, range.value), SENT_EVERY_MS);
  });
  number.addEventListener('change', () => setThreshold(threshold.name, number.value));
  row.append(label, number, range, element('p', 'note', threshold.help));
  return row;
}

function setThreshold(name, text) {
  send({ do: 'threshold', name, value: text.trim() === '' ? null : Number(text) });
}

function showThresholds(thresholds) {
  const names = thresholds.map((threshold) => threshold.name).join();
  if (sliders.dataset.names !== names) {
    sliders.dataset.names = names;
    sliders.replaceChildren(...thresholds.map(sliderOf));
  }
  for (const threshold of thresholds) {
    const row = sliders.querySelector(`[data-name="${threshold.name}"]`);
    for (const input of row.querySelectorAll('input')) {
      if (input !== document.activeElement) {
        input.value = threshold.value;
      }
    }
  }
  document.getElementById('thresholds').hidden = !thresholds.length;
}

// Numbers

function showFacts(rows) {
  facts.replaceChildren(
    ...rows.map(([term, value]) => {
      const box = element('div', '');
      box.append(element('dt', '', term), element('dd', '', value));
      return box;
    }),
  );
}

function milliseconds(value) {
  return value < 100 ? `${value.toFixed(1)} ms` : `${value.toFixed(0)} ms`;
}

function showStages(timings) {
  const rows = Object.entries(timings).map(([stage, [median, high]]) => {
    const row = element('tr', '');
    const head = element('th', '', stage);
    head.scope = 'row';
    row.append(head, element('td', 'number', median.toFixed(1)), element('td', 'number', high.toFixed(1)));
    return row;
  });
  document.querySelector('#stages tbody').replaceChildren(...rows);
  document.getElementById('stages').hidden = !rows.length;
}

function showNumbers(state) {
  const age = state.timings_ms.age;
  const total = state.timings_ms.total;
  showFacts([
    ['frames per second', state.rate_hz.toFixed(1)],
    ['age of a result, median', age ? milliseconds(age[0]) : '–'],
    ['time per frame, median', total ? milliseconds(total[0]) : '–'],
    ['frames dropped', String(state.dropped)],
    ['encoder', state.encoder || '–'],
    ['device', state.device || '–'],
  ]);
  showStages(state.timings_ms);
}

// State

function showState(state) {
  document.getElementById('source').textContent = state.source;
  showNotes(state.notes);
  showThresholds(state.thresholds);
  showNumbers(state);
  pause.textContent = state.paused ? 'Go on' : 'Pause';
  pause.setAttribute('aria-pressed', String(state.paused));
  step.disabled = !state.resting;
  step.textContent = state.resting && !state.paused ? 'From the beginning' : 'Next frame';
  const asking = state.asking ? `asking the language model for ${state.asking} classes` : '';
  const doing = state.paused ? 'paused' : 'live';
  say(state.trouble || asking || doing, state.trouble ? 'trouble' : doing);
}

function say(sentence, kind) {
  const status = document.getElementById('status');
  status.textContent = sentence;
  status.dataset.kind = kind;
}

pause.addEventListener('click', () => {
  send({ do: 'pause', paused: pause.getAttribute('aria-pressed') !== 'true' });
});
step.addEventListener('click', () => send({ do: 'step' }));

// Keys

function changeOpacity(by) {
  opacity.value = Number(opacity.value) + by;
  draw();
}

const KEYS = {
  ' ': () => pause.click(),
  n: () => step.click(),
  1: () => chooseView('overlay'),
  2: () => chooseView('labels'),
  3: () => chooseView('confidence'),
  4: () => chooseView('heat'),
  '[': () => changeOpacity(-0.1),
  ']': () => changeOpacity(0.1),
  '/': () => names.focus(),
  Escape: () => goBack(),
};

document.addEventListener('keydown', (event) => {
  const typing = event.target.closest('input:not([type=radio], [type=range]), textarea, select');
  const pressing = event.key === ' ' && event.target.closest('button, summary, a, input');
  const action = KEYS[event.key];
  if (typing || pressing || !action || event.ctrlKey || event.metaKey || event.altKey) {
    return;
  }
  event.preventDefault();
  action();
});
