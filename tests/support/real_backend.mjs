// Node's own servers as backends: HTTP/1, HTTP/2 by prior knowledge, and both with TLS.
// argv: certificate, key. Prints {"http1": port, ...} once all listen; ends with its standard input.
import { readFileSync } from "node:fs";
import http from "node:http";
import http2 from "node:http2";
import https from "node:https";

const [cert, key] = process.argv.slice(2).map((path) => readFileSync(path));
const big = Buffer.alloc(1_000_000, "0123456789abcdef");

// /anything/WORD: the first part says which backend a request was routed to.
function answer(request, response) {
  const word = request.url.split("/").pop();
  if (word === "health") return response.end();
  if (word === "small") return response.end("small\n");
  if (word === "big") return response.end(big);
  if (word === "trailers") {
    response.setHeader("trailer", "x-checksum");
    response.write("body\n");
    response.addTrailers({ "x-checksum": "1234" });
    return response.end();
  }
  if (word === "events") {
    response.setHeader("content-type", "text/event-stream");
    let left = 3;
    const tick = () => {
      response.write(`data: ${left}\n\n`);
      if (--left > 0) return setTimeout(tick, 20);
      response.end("data: [DONE]\n\n");
    };
    return tick();
  }
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    response.setHeader("content-type", "text/plain");
    response.end(Buffer.concat(pieces));
  });
}

function upgrade(request, socket) {
  socket.write("HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n");
  socket.pipe(socket);
}

const servers = {
  http1: http.createServer(answer),
  http2: http2.createServer(answer),
  https1: https.createServer({ cert, key }, answer),
  https2: http2.createSecureServer({ cert, key, allowHTTP1: true }, answer),
};
const ports = {};
for (const [name, server] of Object.entries(servers)) {
  server.on("upgrade", upgrade);
  server.keepAliveTimeout = 120_000;   // Its 5 s would be over in the middle of a request now and then.
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  ports[name] = server.address().port;
}
console.log(JSON.stringify(ports));
process.stdin.on("end", () => process.exit(0)).resume();
