'use strict';

const canvas = document.getElementById('canvas');
const context = canvas.getContext('2d');
const layer = document.createElement('canvas');
const reading = document.getElementById('reading');
const probeMark = document.getElementById('probe');
const heatClass = document.getElementById('heat-class');
const opacity = document.getElementById('opacity');

const look = { view: 'overlay', frame: null, probe: null, names: new Map() };

function nameOf(id) {
  return id === 0 ? 'background' : look.names.get(id) || `class ${id}`;
}

function isContour(labels, columns, rows, i) {
  const x = i % columns;
  const label = labels[i];
  return (
    (x > 0 && labels[i - 1] !== label) ||
    (x < columns - 1 && labels[i + 1] !== label) ||
    (i >= columns && labels[i - columns] !== label) ||
    (i + columns < columns * rows && labels[i + columns] !== label)
  );
}

function fillLayer(columns, rows, paint) {
  layer.width = columns;
  layer.height = rows;
  const image = new ImageData(columns, rows);
  for (let i = 0; i < columns * rows; i += 1) {
    paint(image.data, 4 * i, i);
  }
  layer.getContext('2d').putImageData(image, 0, 0);
  context.drawImage(layer, 0, 0, canvas.width, canvas.height);
}

function put(data, at, colour, alpha) {
  data[at] = colour[0];
  data[at + 1] = colour[1];
  data[at + 2] = colour[2];
  data[at + 3] = alpha;
}

function drawOverlay(frame) {
  const { labels, columns, rows } = frame;
  const colours = frame.ids.map(colourOf);
  const alpha = Math.round(255 * Number(opacity.value));
  context.drawImage(frame.picture, 0, 0);
  fillLayer(columns, rows, (data, at, i) => {
    const id = frame.ids[labels[i]];
    const contour = isContour(labels, columns, rows, i);
    if (id !== 0) {
      put(data, at, colours[labels[i]], contour && alpha ? 255 : alpha);
    } else if (contour && alpha) {
      put(data, at, [255, 255, 255], 255);
    }
  });
}

function drawLabels(frame) {
  const colours = frame.ids.map(colourOf);
  fillLayer(frame.columns, frame.rows, (data, at, i) => put(data, at, colours[frame.labels[i]], 255));
}

function drawConfidence(frame) {
  fillLayer(frame.columns, frame.rows, (data, at, i) => put(data, at, HEAT_TABLE[frame.confidence[i]], 255));
}

function mapOf(frame, id) {
  const place = frame.maps ? frame.maps.ids.indexOf(id) : -1;
  if (place < 0) {
    return null;
  }
  const [rows, columns] = frame.maps.shape;
  const size = rows * columns;
  const values = frame.probabilities.subarray(place * size, (place + 1) * size);
  return { values, rows, columns };
}

function drawHeat(frame) {
  const id = Number(heatClass.value);
  context.drawImage(frame.picture, 0, 0);
  const alpha = Math.round(255 * Math.max(0.3, Number(opacity.value)));
  const map = mapOf(frame, id);
  if (map) {
    context.imageSmoothingQuality = 'high';
    fillLayer(map.columns, map.rows, (data, at, i) => put(data, at, HEAT_TABLE[map.values[i]], alpha));
    return;
  }
  // Without maps what is known of a class is how sure the labels are where it is.
  fillLayer(frame.columns, frame.rows, (data, at, i) => {
    const own = !frame.maps && frame.ids[frame.labels[i]] === id;
    put(data, at, HEAT_TABLE[own ? frame.confidence[i] : 0], alpha);
  });
}

const DRAW = { overlay: drawOverlay, labels: drawLabels, confidence: drawConfidence, heat: drawHeat };

function draw() {
  const { frame } = look;
  if (!frame) {
    return;
  }
  if (canvas.width !== frame.columns || canvas.height !== frame.rows) {
    canvas.width = frame.columns;
    canvas.height = frame.rows;
    canvas.style.setProperty('--aspect', frame.columns / frame.rows);
  }
  DRAW[look.view](frame);
  canvas.dataset.frame = frame.frame;
  canvas.dataset.view = look.view;
  readProbe();
}

function showFrame(frame) {
  if (look.frame && look.frame !== frame) {
    look.frame.picture.close();
  }
  look.frame = frame;
  draw();
}

// Hover

function percentage(part) {
  return part > 0.005 ? `${Math.round(100 * part)} %` : '< 1 %';
}

function probabilityAt(frame, place, x, y) {
  const [rows, columns] = frame.maps.shape;
  const at = (value, of, cells) => Math.min(cells - 1, Math.floor((value / of) * cells));
  const cell = at(y, frame.rows, rows) * columns + at(x, frame.columns, columns);
  return frame.probabilities[place * rows * columns + cell] / 255;
}

function nextClasses(frame, x, y, id) {
  if (!frame.maps) {
    return list.canEdit ? '' : ' · the node does not send the next classes';
  }
  const others = frame.maps.ids
    .map((other, place) => ({ other, part: probabilityAt(frame, place, x, y) }))
    .filter(({ other }) => other !== id)
    .sort((a, b) => b.part - a.part)
    .slice(0, 3)
    .map(({ other, part }) => `${nameOf(other)} ${percentage(part)}`);
  return others.length ? ` · next, before refinement: ${others.join(', ')}` : '';
}

function readProbe() {
  const { frame, probe } = look;
  probeMark.hidden = !probe || !frame;
  if (!probe || !frame) {
    return;
  }
  const x = Math.min(frame.columns - 1, Math.max(0, Math.floor(probe.x * frame.columns)));
  const y = Math.min(frame.rows - 1, Math.max(0, Math.floor(probe.y * frame.rows)));
  const at = y * frame.columns + x;
  const id = frame.ids[frame.labels[at]];
  const wide = Math.floor((x * frame.width) / frame.columns);
  const high = Math.floor((y * frame.height) / frame.rows);
  const sure = percentage(frame.confidence[at] / 255);
  reading.textContent = `(${wide}, ${high}) ${nameOf(id)} ${sure}${nextClasses(frame, x, y, id)}`;
  probeMark.style.left = `${canvas.offsetLeft + probe.x * canvas.offsetWidth}px`;
  probeMark.style.top = `${canvas.offsetTop + probe.y * canvas.offsetHeight}px`;
}

canvas.addEventListener('pointermove', (event) => {
  const box = canvas.getBoundingClientRect();
  look.probe = { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  readProbe();
});
canvas.addEventListener('pointerdown', (event) => canvas.dispatchEvent(new PointerEvent('pointermove', event)));

window.addEventListener('resize', readProbe);

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

canvas.addEventListener('keydown', (event) => {
  const step = STEPS[event.key];
  if (!step) {
    return;
  }
  event.preventDefault();
  const { x, y } = look.probe || { x: 0.5, y: 0.5 };
  const inside = (value) => Math.min(1, Math.max(0, value));
  const far = event.shiftKey ? 0.1 : 0.01;
  look.probe = { x: inside(x + far * step[0]), y: inside(y + far * step[1]) };
  readProbe();
});

// Views

function chooseView(name) {
  look.view = name;
  document.querySelector(`#views input[value="${name}"]`).checked = true;
  draw();
}

function showHeatOf(id) {
  heatClass.value = String(id);
  chooseView('heat');
}

for (const input of document.querySelectorAll('#views input')) {
  input.addEventListener('change', () => chooseView(input.value));
}
heatClass.addEventListener('change', () => chooseView('heat'));
opacity.addEventListener('input', draw);
