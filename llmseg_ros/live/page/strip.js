'use strict';

// The last frames, as they came: a look back costs the server nothing.

const KEPT = 12;
const EVERY_MS = 1000;
const strip = document.getElementById('strip');
const back = document.getElementById('back');
const kept = { last: 0, newest: null, held: false };

function keepInStrip(frame) {
  const now = performance.now();
  if (now - kept.last < EVERY_MS && strip.children.length) {
    return;
  }
  kept.last = now;
  const thumbnail = document.createElement('canvas');
  thumbnail.height = 64;
  thumbnail.width = Math.max(1, Math.round((64 * frame.columns) / frame.rows));
  thumbnail.getContext('2d').drawImage(canvas, 0, 0, thumbnail.width, thumbnail.height);
  const button = document.createElement('button');
  button.type = 'button';
  button.setAttribute('role', 'listitem');
  button.setAttribute('aria-label', `Look at frame ${frame.frame}`);
  button.append(thumbnail);
  button.addEventListener('click', () => hold(button, frame.buffer));
  strip.prepend(button);
  while (strip.children.length > KEPT) {
    strip.lastChild.remove();
  }
}

async function hold(button, buffer) {
  kept.held = true;
  back.hidden = false;
  markHeld(button);
  showFrame(await decodeFrame(buffer));
  showShares(look.frame);
}

function markHeld(button) {
  for (const other of strip.children) {
    other.setAttribute('aria-current', String(other === button));
  }
}

async function goBack() {
  if (!kept.held) {
    return;
  }
  kept.held = false;
  back.hidden = true;
  markHeld(null);
  if (kept.newest) {
    takeFrame(await decodeFrame(kept.newest));
  }
}

function takeFrame(frame) {
  showFrame(frame);
  showShares(frame);
}

async function receiveFrame(buffer) {
  kept.newest = buffer;
  if (kept.held) {
    return;
  }
  const frame = await decodeFrame(buffer);
  if (kept.held) {
    frame.picture.close();
    return;
  }
  takeFrame(frame);
  keepInStrip(frame);
}

back.addEventListener('click', goBack);
