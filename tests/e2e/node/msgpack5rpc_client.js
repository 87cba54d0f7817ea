// Calls a node with msgpack5rpc, and prints what came of it as JSON: HOST PORT NAME.
"use strict";

const net = require("net");
const Session = require("msgpack5rpc");

const [host, port, name] = process.argv.slice(2);
const socket = net.createConnection(Number(port), host);
const session = new Session();
session.attach(socket, socket);

const call = (method, ...params) =>
  new Promise((resolve, reject) =>
    session.request(method, params, (error, result) => (error ? reject(error) : resolve(result))));

const refusal = (method) => call(method).then(() => null, (error) => error);

const notified = new Promise((resolve) =>
  session.on("notification", (method, params) => resolve(["notification", method, params])));

session.on("request", (method, params, response) =>
  method === "double" ? response.send(params[0] * 2) : response.send("no such method", true));

async function main() {
  const results = {};
  results.add = await call("calculator.add", 2, 3);
  results.echo = await call("calculator.echo", { a: [1, -1, 2 ** 40, 1.5, null, true, "ü".repeat(300)] });
  const bytes = Buffer.alloc(1000000, "\x00\xff", "latin1");
  results.bytes = bytes.equals(await call("calculator.echo", bytes));
  results.many = await Promise.all(Array.from({ length: 500 }, (_, i) => call("calculator.add", i, 1)));
  for (const method of ["calculator.fail", "calculator.nothing", "calculator.count"]) {
    results[method] = await refusal(method);
  }
  session.notify("guestbook.sign", [name]);
  results.signed = await call("guestbook.signed", name);
  await call("guestbook.tell", "news", 7);
  results.told = await notified;
  results.asked = await call("guestbook.ask", "double", 21);
  socket.end();
  console.log(JSON.stringify(results));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
