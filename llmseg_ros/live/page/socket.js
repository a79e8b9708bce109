'use strict';

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 5000;
const link = { socket: null, wait: FIRST_WAIT_MS };

function send(request) {
  if (link.socket?.readyState !== WebSocket.OPEN) {
    told.textContent = 'not sent: the server is gone';
    return false;
  }
  link.socket.send(JSON.stringify(request));
  return true;
}

function receiveText(text) {
  const message = JSON.parse(text);
  if (message.classes) {
    showClasses(message.classes, message.kind === 'local');
  } else if (message.state) {
    showState(message.state);
  } else if (message.trouble) {
    say(message.trouble, 'trouble');
  } else {
    const where = message.done === 'threshold' ? 'threshold-told' : 'told';
    document.getElementById(where).textContent = message.told;
  }
}

async function receive(event) {
  if (typeof event.data === 'string') {
    receiveText(event.data);
    return;
  }
  try {
    await receiveFrame(event.data);
  } catch (error) {
    say(`a frame could not be shown: ${error.message}`, 'trouble');
  }
  // Only now may another come: what a slow link or page can't keep up with is dropped, not queued.
  if (event.target.readyState === WebSocket.OPEN) {
    event.target.send('{"do": "shown"}');
  }
}

function tellLooking() {
  if (link.socket?.readyState === WebSocket.OPEN) {
    send({ do: 'look', looking: !document.hidden });
  }
}

function connect() {
  const address = new URL('socket', location.href);
  address.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  address.search = location.search;
  const socket = new WebSocket(address);
  socket.binaryType = 'arraybuffer';
  link.socket = socket;
  socket.addEventListener('open', () => {
    list.key = '';
    tellLooking();
  });
  socket.addEventListener('message', (event) => {
    link.wait = FIRST_WAIT_MS;
    receive(event);
  });
  socket.addEventListener('close', async (event) => {
    setTimeout(connect, link.wait);
    link.wait = Math.min(2 * link.wait, LONGEST_WAIT_MS);
    say(`${event.reason || 'the server is gone'}; trying again`, 'gone');
    const refusal = event.reason ? '' : await refusalOfPage();
    if (refusal && socket === link.socket) {
      say(refusal, 'gone');
    }
  });
}

// A server that was started anew has another token, which a closed socket does not tell.
async function refusalOfPage() {
  try {
    const answer = await fetch(location.href, { cache: 'no-store' });
    return answer.ok ? '' : await answer.text();
  } catch {
    return '';
  }
}

for (const anchor of document.querySelectorAll('a.button')) {
  const address = new URL(anchor.getAttribute('href'), location.href);
  address.search = location.search;
  anchor.href = address;
}
document.addEventListener('visibilitychange', tellLooking);
connect();
