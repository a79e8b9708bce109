'use strict';

// A message is the length of its header, the header as JSON, and the parts it lists: the picture,
// the labels as indices into `ids`, the confidence, and the maps of the classes.

const EXACT = { colorSpaceConversion: 'none', premultiplyAlpha: 'none' };

function splitMessage(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let at = 4 + length;
  const parts = header.parts.map((size) => {
    const part = new Uint8Array(buffer, at, size);
    at += size;
    return part;
  });
  return { header, parts };
}

function decodeImage(part, type, options) {
  return createImageBitmap(new Blob([part], { type }), options);
}

function pixelsOf(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height).data;
}

function indicesOf(bitmap, wide) {
  const pixels = pixelsOf(bitmap);
  const indices = new Uint16Array(pixels.length / 4);
  for (let i = 0; i < indices.length; i += 1) {
    indices[i] = wide ? pixels[4 * i] + 256 * pixels[4 * i + 1] : pixels[4 * i];
  }
  return indices;
}

function greysOf(bitmap) {
  const pixels = pixelsOf(bitmap);
  const greys = new Uint8Array(pixels.length / 4);
  for (let i = 0; i < greys.length; i += 1) {
    greys[i] = pixels[4 * i];
  }
  return greys;
}

async function decodeFrame(buffer) {
  const { header, parts } = splitMessage(buffer);
  const [picture, labels, confidence] = await Promise.all([
    decodeImage(parts[0], 'image/jpeg'),
    decodeImage(parts[1], 'image/png', EXACT),
    decodeImage(parts[2], 'image/jpeg', EXACT),
  ]);
  return {
    ...header,
    buffer,
    picture,
    columns: picture.width,
    rows: picture.height,
    labels: indicesOf(labels, header.wide),
    confidence: greysOf(confidence),
    probabilities: parts[3],
  };
}

// The colour map of PASCAL VOC: bit 3k + j of the id is bit 7 - k of channel j.
function colourOf(id) {
  const colour = [0, 0, 0];
  for (let k = 0; k < 6; k += 1) {
    for (let j = 0; j < 3; j += 1) {
      colour[j] |= ((id >> (3 * k + j)) & 1) << (7 - k);
    }
  }
  return colour;
}

// Dark violet over red to pale yellow, which also reads without colours.
const HEAT_STOPS = [[12, 8, 38], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];

function heatColour(byte) {
  const place = (byte / 255) * (HEAT_STOPS.length - 1);
  const below = Math.min(Math.floor(place), HEAT_STOPS.length - 2);
  const part = place - below;
  return HEAT_STOPS[below].map((low, j) => low + part * (HEAT_STOPS[below + 1][j] - low));
}

const HEAT_TABLE = Array.from({ length: 256 }, (_, byte) => heatColour(byte));
