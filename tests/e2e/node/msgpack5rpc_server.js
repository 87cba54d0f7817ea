// Serves methods with msgpack5rpc until it is ended; prints where.
"use strict";

const net = require("net");
const Session = require("msgpack5rpc");

const names = [];
const methods = {
  add: (a, b) => a + b,
  echo: (value) => value,
  sign: (name) => names.push(name),
  signed: (name) => names.filter((one) => one === name).length,
};

const server = net.createServer((socket) => {
  const session = new Session();
  session.on("detach", () => socket.end());
  session.on("notification", (method, params) => methods[method] && methods[method](...params));
  session.on("request", (method, params, response) => {
    if (method === "never") {
      return;
    }
    if (method in methods) {
      response.send(methods[method](...params));
    } else {
      response.send("it does not work", true);
    }
  });
  socket.on("error", () => socket.destroy());
  session.attach(socket, socket);
});

server.listen(0, "127.0.0.1", () => {
  console.log(`listening on tcp://127.0.0.1:${server.address().port}`);
});
