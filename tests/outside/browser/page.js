// What a page does with the service, told to the test that serves the page. Only `fetch`: no library stands between.
'use strict';

const LIST = 'yandex.cloud.mdb.redis.v1.ClusterService/List';
const { service, token, cluster } = JSON.parse(document.getElementById('told').textContent);
const login = token ? { authorization: `Bearer ${token}` } : {};

// A field of text, in protobuf: tag, length, bytes. All that is sent here is shorter than 128 bytes.
const text = (number, value) => {
    const bytes = new TextEncoder().encode(value);
    return [(number << 3) | 2, bytes.length, ...bytes];
};

// A message of gRPC-Web: a flag, the length in four bytes, the bytes. The trailers come as a last one with the flag 0x80.
const frame = (bytes) => new Uint8Array([0, 0, 0, 0, bytes.length, ...bytes]);

const frames = (bytes) => {
    const found = { messages: [], trailers: {} };
    for (let at = 0; at < bytes.length;) {
        const length = new DataView(bytes.buffer, bytes.byteOffset + at + 1).getUint32(0);
        const body = bytes.subarray(at + 5, at + 5 + length);
        if (bytes[at] & 0x80) {
            const lines = new TextDecoder().decode(body).split('\r\n').filter(Boolean);
            found.trailers = Object.fromEntries(lines.map((line) => line.split(/:\s*(.*)/).slice(0, 2)));
        } else {
            found.messages.push(new TextDecoder().decode(body));
        }
        at += 5 + length;
    }
    return found;
};

async function grpcWeb(form, method, request, headers = login) {
    const isText = form.includes('-text');
    const body = frame(request);
    const answer = await fetch(`${service}/${method}`, {
        method: 'POST',
        headers: { 'content-type': form, accept: form, 'x-grpc-web': '1', ...headers },
        body: isText ? btoa(String.fromCharCode(...body)) : body,
    });
    let bytes = new Uint8Array(await answer.arrayBuffer());
    if (isText) {
        // Each part is padded by itself.
        const parts = new TextDecoder().decode(bytes).match(/[^=]+=*/g) ?? [];
        bytes = Uint8Array.from(parts.map(atob).join(''), (letter) => letter.charCodeAt(0));
    }
    const { messages, trailers } = frames(bytes);
    const status = trailers['grpc-status'] ?? answer.headers.get('grpc-status');
    return { http: answer.status, type: answer.headers.get('content-type'), status, text: messages.join('') };
}

async function rest(path, options = {}) {
    const answer = await fetch(service + path, { headers: login, ...options });
    return { http: answer.status, kind: answer.type, text: await answer.text() };
}

const ATTEMPTS = {
    proto: () => grpcWeb('application/grpc-web+proto', LIST, text(1, 'default')),
    text: () => grpcWeb('application/grpc-web-text', LIST, text(1, 'default')),
    operation: () => grpcWeb('application/grpc-web+proto', 'yandex.cloud.operation.OperationService/Get', text(1, 'nothing')),
    tokenless: () => grpcWeb('application/grpc-web+proto', LIST, text(1, 'default'), {}),
    get: () => rest('/managed-redis/v1/clusters?folderId=default'),
    // A change without any header that a browser would ask about first.
    simple: () => rest(`/managed-redis/v1/clusters/${cluster}:backup`, { method: 'POST', headers: {} }),
    // The same where the page does not even want to read the answer.
    blind: () => rest(`/managed-redis/v1/clusters/${cluster}:backup`, { method: 'POST', headers: {}, mode: 'no-cors' }),
    blindGet: () => rest('/managed-redis/v1/clusters?folderId=default', { headers: {}, mode: 'no-cors' }),
};

// A form is sent without CORS, and its answer goes into a frame.
function form() {
    const frame = document.createElement('iframe');
    frame.name = 'answer';
    const element = document.createElement('form');
    Object.assign(element, { method: 'POST', action: `${service}/managed-redis/v1/clusters/${cluster}:backup`, target: 'answer' });
    document.body.append(frame, element);
    return new Promise((resolve) => {
        frame.addEventListener('load', () => resolve({ text: '' }));
        element.submit();
    });
}

(async () => {
    const outcome = {};
    for (const [name, attempt] of Object.entries({ ...ATTEMPTS, form })) {
        outcome[name] = await attempt().catch((error) => ({ refused: String(error) }));
    }
    await fetch('/outcome', { method: 'POST', body: JSON.stringify(outcome) });
})();
