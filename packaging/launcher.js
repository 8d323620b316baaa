#!/usr/bin/env node
// Starts the binary of this platform's package and ends as it ends: with its exit code or by its signal.
"use strict";

const { spawn } = require("node:child_process");
const { constants } = require("node:os");

const { optionalDependencies } = require("../package.json");

function fail(message) {
  process.stderr.write(`error: ${message}\n`);
  process.exit(2);
}

function binary() {
  const name = `@tallymark/${process.platform}-${process.arch}`;
  if (!(name in optionalDependencies)) {
    fail(`tallymark has no package for ${process.platform} on ${process.arch}; build it from source`);
  }
  try {
    return require.resolve(`${name}/bin/tallymark`);
  } catch {
    return fail(`the package ${name} is not installed; install tallymark again, with optional dependencies`);
  }
}

const child = spawn(binary(), process.argv.slice(2), { stdio: "inherit" });
child.on("error", (error) => fail(`tallymark cannot be started: ${error.message}`));

// A terminal sends these to the child as well, and a second one would end it immediately.
const interactive = [0, 1, 2].some((stream) => require("node:tty").isatty(stream));
const handlers = new Map();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"]) {
  const passOn = signal === "SIGTERM" || !interactive;
  handlers.set(signal, () => passOn && child.kill(signal));
  process.on(signal, handlers.get(signal));
}

child.on("exit", (code, signal) => {
  if (signal === null) {
    process.exit(code);
  }
  process.removeListener(signal, handlers.get(signal) ?? (() => {}));
  process.kill(process.pid, signal);
  // Still here where the signal is ignored, for example in a container's first process.
  setTimeout(() => process.exit(128 + constants.signals[signal]), 1000);
});
