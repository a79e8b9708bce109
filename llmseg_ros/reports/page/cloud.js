'use strict';

{
  const VERTEX = `
    attribute vec3 place;
    attribute vec3 colour;
    uniform mat4 view;
    uniform vec3 size;
    uniform float pixels;
    varying vec3 shade;
    void main() {
      gl_Position = view * vec4(place * size, 1.0);
      gl_PointSize = clamp(pixels / gl_Position.w, 1.0, 64.0);
      shade = colour;
    }`;
  const FRAGMENT = `
    precision mediump float;
    varying vec3 shade;
    void main() {
      gl_FragColor = vec4(shade, 1.0);
    }`;
  const FIELD = 0.8;  // of view from top to bottom, in radians
  const STEEPEST = 1.55;
  const TURN = 0.08;  // of a key, in radians
  const STRIDE = 12;  // bytes of a point: three uint16 and two of nothing, four uint8

  const figure = document.querySelector('.cloud');
  const canvas = figure.querySelector('canvas');
  const status = figure.querySelector('output');
  const data = JSON.parse(document.getElementById('cloud-data').textContent);

  function bytesOf(text) {
    return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  }

  function wordsOf(text) {
    const bytes = new DataView(bytesOf(text).buffer);
    return Uint16Array.from({ length: bytes.byteLength / 2 }, (_, i) => bytes.getUint16(2 * i, true));
  }

  const places = wordsOf(data.places);
  const classes = wordsOf(data.classes);
  const rgb = bytesOf(data.rgb);
  const probability = bytesOf(data.probability);

  // Vectors and matrices, these by columns as WebGL has them.

  const add = (a, b, times = 1) => a.map((value, i) => value + times * b[i]);
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const cross = (a, b) => [
    a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0],
  ];
  const unit = (a) => a.map((value) => value / (Math.hypot(...a) || 1));

  function multiply(a, b) {
    return Array.from({ length: 16 }, (_, i) => {
      const column = i - (i % 4);
      return [0, 1, 2, 3].reduce((sum, k) => sum + a[4 * k + (i % 4)] * b[column + k], 0);
    });
  }

  // Where one stands: turned about a target, at a distance. Metres from the lowest corner.

  const reach = Math.hypot(...data.size);
  const right = cross(data.ahead, data.up);
  const start = {
    target: data.size.map((edge) => edge / 2), yaw: 0.5, pitch: 0.6, distance: 0.95 * reach,
  };
  let eye = structuredClone(start);

  function directions() {
    const level = add(data.ahead.map((v) => v * Math.cos(eye.yaw)), right, Math.sin(eye.yaw));
    const ahead = add(level.map((v) => v * Math.cos(eye.pitch)), data.up, -Math.sin(eye.pitch));
    const side = unit(cross(ahead, data.up));
    return { ahead, side, up: cross(side, ahead) };
  }

  function viewMatrix(aspect) {
    const { ahead, side, up } = directions();
    const distance = eye.distance * Math.max(1, 1 / aspect);  // a narrow canvas shows all, too
    const from = add(eye.target, ahead, -distance);
    const look = [
      side[0], up[0], -ahead[0], 0, side[1], up[1], -ahead[1], 0, side[2], up[2], -ahead[2], 0,
      -dot(side, from), -dot(up, from), dot(ahead, from), 1,
    ];
    const near = distance / 100;
    const far = distance + 2 * reach;
    const f = 1 / Math.tan(FIELD / 2);
    const lens = [
      f / aspect, 0, 0, 0, 0, f, 0, 0, 0, 0, (far + near) / (near - far), -1,
      0, 0, 2 * far * near / (near - far), 0,
    ];
    return multiply(lens, look);
  }

  function turn(dx, dy) {
    eye.yaw += dx;
    eye.pitch = Math.max(-STEEPEST, Math.min(STEEPEST, eye.pitch + dy));
    redraw();
  }

  function zoom(times) {
    eye.distance = Math.max(reach / 200, Math.min(4 * reach, eye.distance * times));
    redraw();
  }

  function shift(dx, dy) {  // in heights of the canvas
    const { side, up } = directions();
    const height = 2 * eye.distance * Math.tan(FIELD / 2);
    eye.target = add(add(eye.target, side, -dx * height), up, dy * height);
    redraw();
  }

  // What is drawn.

  let gl = null;
  let uniforms = {};
  let cloud = { buffer: null, count: 0 };
  let path = { buffer: null, count: 0 };
  let isWaiting = false;

  function setUp() {
    gl = canvas.getContext('webgl', { antialias: false });
    if (!gl) {
      figure.classList.add('without');
      return;
    }
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.bindAttribLocation(program, 0, 'place');
    gl.bindAttribLocation(program, 1, 'colour');
    gl.linkProgram(program);
    gl.useProgram(program);
    for (const name of ['view', 'size', 'pixels']) {
      uniforms[name] = gl.getUniformLocation(program, name);
    }
    gl.enable(gl.DEPTH_TEST);
    gl.enableVertexAttribArray(0);
    gl.enableVertexAttribArray(1);
    cloud = { buffer: gl.createBuffer(), count: 0 };
    path = { buffer: gl.createBuffer(), count: 0 };
    fillPath();
    fill();
  }

  function put(view, index, place, colour) {
    place.forEach((value, axis) => view.setUint16(STRIDE * index + 2 * axis, value, true));
    colour.forEach((value, channel) => view.setUint8(STRIDE * index + 8 + channel, value));
  }

  function upload(what, buffer, count) {
    gl.bindBuffer(gl.ARRAY_BUFFER, what.buffer);
    gl.bufferData(gl.ARRAY_BUFFER, new Uint8Array(buffer, 0, STRIDE * count), gl.STATIC_DRAW);
    what.count = count;
  }

  function fillPath() {
    const view = new DataView(new ArrayBuffer(STRIDE * data.path.length));
    const accent = [36, 103, 201];
    data.path.forEach((point, i) => {
      const share = point.map((v, axis) => (v - data.low[axis]) / data.size[axis]);
      put(view, i, share.map((v) => Math.round(65535 * Math.max(0, Math.min(1, v)))), accent);
    });
    upload(path, view.buffer, data.path.length);
  }

  function colourOf(i, mode) {
    if (mode === 'camera') {
      return [rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2]];
    }
    if (mode === 'probability') {
      const p = probability[i] / 255;
      return [230 - 190 * p, 60 + 110 * p, 40 + 80 * p];
    }
    const grey = (0.3 * rgb[3 * i] + 0.59 * rgb[3 * i + 1] + 0.11 * rgb[3 * i + 2]) / 255;
    if (data.plain[classes[i]]) {
      const [pale, palest] = data.pale;
      return Array(3).fill(pale + (palest - pale) * grey);
    }
    return data.colours[classes[i]].map((value) => value * (0.55 + 0.45 * grey));
  }

  function fill() {
    const mode = figure.querySelector('input[name="colour"]:checked').value;
    const least = 2.55 * figure.querySelector('input[name="least"]').value;
    const boxes = [...figure.querySelectorAll('input[name="class"]')];
    const isShown = boxes.map((box) => box.checked);
    const view = new DataView(new ArrayBuffer(STRIDE * data.count));
    let count = 0;
    for (let i = 0; i < data.count; i += 1) {
      if (isShown[classes[i]] && probability[i] >= least) {
        put(view, count, places.subarray(3 * i, 3 * i + 3), colourOf(i, mode));
        count += 1;
      }
    }
    upload(cloud, view.buffer, count);
    const [shown, all] = [count, data.count].map((n) => n.toLocaleString('en'));
    status.textContent = `${shown} of ${all} points`;
    redraw();
  }

  function draw() {
    isWaiting = false;
    const scale = window.devicePixelRatio || 1;
    const width = Math.max(1, Math.round(canvas.clientWidth * scale));
    const height = Math.max(1, Math.round(canvas.clientHeight * scale));
    if (canvas.width !== width || canvas.height !== height) {
      Object.assign(canvas, { width, height });
    }
    const paper = getComputedStyle(canvas).backgroundColor.match(/[\d.]+/g).map((v) => v / 255);
    gl.viewport(0, 0, width, height);
    gl.clearColor(paper[0], paper[1], paper[2], 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const times = Number(figure.querySelector('input[name="size"]').value);
    gl.uniformMatrix4fv(uniforms.view, false, viewMatrix(width / height));
    gl.uniform3fv(uniforms.size, data.size);
    gl.uniform1f(uniforms.pixels, times * data.voxel * height / (2 * Math.tan(FIELD / 2)));
    for (const [what, kind] of [[cloud, gl.POINTS], [path, gl.LINE_STRIP]]) {
      gl.bindBuffer(gl.ARRAY_BUFFER, what.buffer);
      gl.vertexAttribPointer(0, 3, gl.UNSIGNED_SHORT, true, STRIDE, 0);
      gl.vertexAttribPointer(1, 3, gl.UNSIGNED_BYTE, true, STRIDE, 8);
      gl.drawArrays(kind, 0, what.count);
    }
  }

  function redraw() {
    if (gl && !isWaiting) {
      isWaiting = true;
      requestAnimationFrame(draw);
    }
  }

  // Mouse and touch: one finger or button turns; two, the right button or Shift move.

  const fingers = new Map();

  function spread() {
    const [a, b] = [...fingers.values()];
    return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, width: Math.hypot(a.x - b.x, a.y - b.y) };
  }

  canvas.addEventListener('pointerdown', (event) => {
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });

  canvas.addEventListener('pointermove', (event) => {
    const last = fingers.get(event.pointerId);
    if (!last) {
      return;
    }
    const before = fingers.size === 2 ? spread() : last;
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    const now = fingers.size === 2 ? spread() : fingers.get(event.pointerId);
    const [dx, dy] = [now.x - before.x, now.y - before.y];
    if (fingers.size === 2) {
      zoom(before.width / Math.max(1, now.width));
    }
    if (fingers.size === 2 || event.shiftKey || event.buttons & 2) {
      shift(dx / canvas.clientHeight, dy / canvas.clientHeight);
    } else {
      turn(-dx / 200, dy / 200);
    }
  });

  for (const name of ['pointerup', 'pointercancel']) {
    canvas.addEventListener(name, (event) => fingers.delete(event.pointerId));
  }

  canvas.addEventListener('contextmenu', (event) => event.preventDefault());

  canvas.addEventListener('wheel', (event) => {
    if (document.activeElement === canvas) {  // else the page scrolls
      event.preventDefault();
      zoom(Math.exp(Math.sign(event.deltaY) * 0.1));
    }
  }, { passive: false });

  const KEYS = {
    ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1],
  };

  canvas.addEventListener('keydown', (event) => {
    const way = KEYS[event.key];
    if (event.ctrlKey || event.altKey || event.metaKey) {
      return;
    }
    if (way && event.shiftKey) {
      shift(way[0] * 0.05, way[1] * 0.05);
    } else if (way) {
      turn(way[0] * TURN, way[1] * TURN);
    } else if (event.key === '+' || event.key === '=') {
      zoom(0.9);
    } else if (event.key === '-') {
      zoom(1 / 0.9);
    } else if (event.key === 'Home') {
      home();
    } else {
      return;
    }
    event.preventDefault();
  });

  function home() {
    eye = structuredClone(start);
    redraw();
  }

  function check(isChecked) {
    for (const box of figure.querySelectorAll('input[name="class"]')) {
      box.checked = isChecked;
    }
    fill();
  }

  figure.querySelector('.home').addEventListener('click', home);
  figure.querySelector('.all').addEventListener('click', () => check(true));
  figure.querySelector('.none').addEventListener('click', () => check(false));
  figure.querySelector('.controls').addEventListener('input', () => gl && fill());
  canvas.addEventListener('webglcontextlost', (event) => {
    event.preventDefault();
    gl = null;
  });
  canvas.addEventListener('webglcontextrestored', setUp);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
  new ResizeObserver(redraw).observe(canvas);
  setUp();
}
