#!/usr/bin/env node
// Run one session, or a few requests, with the official JavaScript client; the exit code is that of the command.
//
//     js-client [-n NAMESPACE] exec|attach [-i] [-t] [-c NAME] POD [-- WORD...]
//     js-client [-n NAMESPACE] port-forward POD PORT
//     js-client [-n NAMESPACE] requests NAME
//
// It runs in a pod, as the pod's service account. port-forward asks the port for "/" over HTTP and prints the answer.
// requests creates a ConfigMap, lists it, watches until it is seen and deletes it, and says so.
import { PassThrough } from "node:stream";
import { parseArgs } from "node:util";

import { Attach, CoreV1Api, Exec, KubeConfig, PortForward, Watch } from "@kubernetes/client-node";

const NORMAL = 1000;
const SIZE = { columns: 101, rows: 31 };

/** What is asked for, read as kubectl reads it: what follows `--` is the command. */
function parse(given) {
    const cut = given.includes("--") ? given.indexOf("--") : given.length;
    const { values, positionals } = parseArgs({
        args: given.slice(0, cut),
        allowPositionals: true,
        options: {
            namespace: { type: "string", short: "n", default: "default" },
            stdin: { type: "boolean", short: "i", default: false },
            tty: { type: "boolean", short: "t", default: false },
            container: { type: "string", short: "c" },
        },
    });
    return { ...values, words: positionals, command: given.slice(cut + 1) };
}

/** Passes everything on until the server closes the session. Only exec is told how the command ended. */
async function session(config, options, verb, pod) {
    // The client asks whatever can tell its size for it.
    const out = options.tty ? Object.assign(process.stdout, SIZE) : process.stdout;
    const streams = [out, options.tty ? null : process.stderr, options.stdin ? process.stdin : null, options.tty];
    const target = [options.namespace, pod, options.container];
    let code;
    const heard = (status) => (code = exitCode(status));
    const socket =
        verb === "exec"
            ? await new Exec(config).exec(...target, options.command, ...streams, heard)
            : await new Attach(config).attach(...target, ...streams);
    const closed = await end(socket);
    if (verb === "exec" && code === undefined) throw new Error(`the session ended without a status, with ${closed}`);
    return code ?? (closed === NORMAL ? 0 : 1);
}

/** The code with which a socket is closed. */
function end(socket) {
    return new Promise((ended) => socket.addEventListener("close", ({ code }) => ended(code)));
}

function exitCode(status) {
    if (status.status === "Success") return 0;
    const cause = status.details?.causes?.find(({ reason }) => reason === "ExitCode");
    if (!cause) throw new Error(status.message);
    return Number(cause.message);
}

async function forward(config, options, pod, port) {
    const [asked, answer] = [new PassThrough(), new PassThrough()];
    const socket = await new PortForward(config).portForward(options.namespace, pod, [port], answer, process.stderr, asked);
    asked.write("GET / HTTP/1.0\r\n\r\n");
    end(socket).then(() => answer.end());
    const text = Buffer.concat(await answer.toArray()).toString();
    process.stdout.write(text.slice(text.indexOf("\r\n\r\n") + 4));
    return 0;
}

async function requests(config, { namespace }, name) {
    const api = config.makeApiClient(CoreV1Api);
    const fieldSelector = `metadata.name=${name}`;
    await api.createNamespacedConfigMap({ namespace, body: { metadata: { name } } });
    console.log("created");
    const { items } = await api.listNamespacedConfigMap({ namespace, fieldSelector });
    console.log(items.map(({ metadata }) => (metadata.name === name ? "listed" : "another")).join());
    await watched(config, `/api/v1/namespaces/${namespace}/configmaps`, fieldSelector);
    console.log("watched");
    await api.deleteNamespacedConfigMap({ namespace, name });
    console.log("deleted");
    return 0;
}

/** Watches until something is added. */
async function watched(config, path, fieldSelector) {
    let watch;
    await new Promise((seen, failed) => {
        const event = (type) => type === "ADDED" && seen();
        const over = (error) => failed(error ?? new Error("the watch ended"));
        watch = new Watch(config).watch(path, { fieldSelector }, event, over);
    });
    (await watch).abort();
}

async function main() {
    const options = parse(process.argv.slice(2));
    const config = new KubeConfig();
    config.loadFromCluster();
    const [verb, what, port] = options.words;
    switch (verb) {
        case "exec":
        case "attach":
            return session(config, options, verb, what);
        case "port-forward":
            return forward(config, options, what, Number(port));
        case "requests":
            return requests(config, options, what);
        default:
            throw new Error(`exec, attach, port-forward or requests, not ${verb}`);
    }
}

const failed = (error) => {
    console.error(`error: ${error.message}`);
    return 1;
};
const code = await main().catch(failed);
// What is written to a pipe is on its way for a while, and standard input may outlast the session: leave without that.
await Promise.all([process.stdout, process.stderr].map((out) => new Promise((done) => out.write("", done))));
process.exit(code);
