// A supermask in the browser: θ0 from the seed, the masks from packed files, the network's answer.
//
// The first half is the package again, in JavaScript: its functions have the names that they have
// in supermask_tf (`initializers`, `tickets`) and in the reader on the page "The format of a packed
// model". The second half is the page. No library, no request to anywhere.

"use strict";

const supermask = (() => {
  // --- SHA-256 (FIPS 180-4) ----------------------------------------------------------------------
  // Our own: the browser's is not there for a page that is opened as a file.

  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n);
  const fraction = (x) => (x - Math.floor(x)) * 2 ** 32;
  const ROUND = Uint32Array.from(primes, (p) => fraction(Math.cbrt(p)));
  const START = Uint32Array.from(primes.slice(0, 8), (p) => fraction(Math.sqrt(p)));

  /** The digest of a Uint8Array, 32 bytes. */
  function sha256(bytes) {
    const size = bytes.length, padded = new Uint8Array(((size + 72) >> 6) << 6);
    padded.set(bytes);
    padded[size] = 0x80;
    const view = new DataView(padded.buffer);
    view.setUint32(padded.length - 8, Math.floor(size / 2 ** 29));
    view.setUint32(padded.length - 4, size << 3);
    const state = START.slice(), w = new Int32Array(64);
    for (let start = 0; start < padded.length; start += 64) {
      for (let t = 0; t < 16; t++) w[t] = view.getInt32(start + 4 * t);
      for (let t = 16; t < 64; t++) {
        const x = w[t - 15], y = w[t - 2];
        w[t] = w[t - 16] + w[t - 7]
          + (((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3))
          + (((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10));
      }
      let [a, b, c, d, e, f, g, h] = state;
      for (let t = 0; t < 64; t++) {
        const one = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
        const zero = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
        const first = (h + one + ((e & f) ^ (~e & g)) + ROUND[t] + w[t]) | 0;
        const second = (zero + ((a & b) ^ (a & c) ^ (b & c))) | 0;
        h = g; g = f; f = e; e = (d + first) | 0;
        d = c; c = b; b = a; a = (first + second) | 0;
      }
      [a, b, c, d, e, f, g, h].forEach((value, k) => { state[k] += value; });
    }
    const digest = new DataView(new ArrayBuffer(32));
    state.forEach((value, k) => digest.setUint32(4 * k, value));
    return new Uint8Array(digest.buffer);
  }

  const hex = (bytes) => Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");

  // --- θ0 ----------------------------------------------------------------------------------------

  /** The upper half of the product of two whole numbers below 2³². */
  function high(a, b) {
    const al = a & 0xffff, ah = a >>> 16, bl = b & 0xffff, bh = b >>> 16;
    const middle = ah * bl + ((al * bl) >>> 16);
    const other = al * bh + (middle & 0xffff);
    return ah * bh + (middle >>> 16) + (other >>> 16);
  }

  const p = new Uint32Array(4), q = new Uint32Array(4);

  /** into = the four words of (low, up) · (ml, mu), the lowest first: 64 × 64 bits. */
  function multiply(into, low, up, ml, mu) {
    const second = high(low, ml) + (Math.imul(low, mu) >>> 0) + (Math.imul(up, ml) >>> 0);
    const third = high(low, mu) + high(up, ml) + (Math.imul(up, mu) >>> 0)
      + Math.floor(second / 2 ** 32);
    into[0] = Math.imul(low, ml);
    into[1] = second; // a typed array keeps the lowest 32 bits
    into[2] = third;
    into[3] = high(up, mu) + Math.floor(third / 2 ** 32);
  }

  /**
   * The first `count` numbers of Philox4x64-10 (Salmon et al. 2011), as NumPy's `random_raw`.
   * A 64-bit number is two 32-bit words here, the lower first: the bytes are those of uint64.
   */
  function philox([k0l, k0u, k1l, k1u], count) {
    const keys = new Uint32Array(40); // of the ten rounds
    for (let round = 0; round < 10; round++) {
      keys.set([k0l, k0u, k1l, k1u], 4 * round);
      const a = k0l + 0x7f4a7c15, b = k1l + 0x84caa73b;
      k0u = (k0u + 0x9e3779b9 + (a >= 2 ** 32 ? 1 : 0)) >>> 0;
      k1u = (k1u + 0xbb67ae85 + (b >= 2 ** 32 ? 1 : 0)) >>> 0;
      k0l = a >>> 0;
      k1l = b >>> 0;
    }
    const blocks = Math.ceil(count / 4), made = new Uint32Array(8 * blocks);
    for (let block = 0; block < blocks; block++) {
      let c0l = block + 1, c0u = 0, c1l = 0, c1u = 0, c2l = 0, c2u = 0, c3l = 0, c3u = 0;
      for (let k = 0; k < 40; k += 4) {
        multiply(p, c0l, c0u, 0xe14c6c93, 0xd2e7470e);
        multiply(q, c2l, c2u, 0x95121157, 0xca5a8263);
        c0l = (q[2] ^ c1l ^ keys[k]) >>> 0;
        c0u = (q[3] ^ c1u ^ keys[k + 1]) >>> 0;
        c2l = (p[2] ^ c3l ^ keys[k + 2]) >>> 0;
        c2u = (p[3] ^ c3u ^ keys[k + 3]) >>> 0;
        c1l = q[0]; c1u = q[1]; c3l = p[0]; c3u = p[1];
      }
      made.set([c0l, c0u, c1l, c1u, c2l, c2u, c3l, c3u], 8 * block);
    }
    return made.subarray(0, 2 * count);
  }

  const size = (shape) => shape.reduce((product, n) => product * n, 1);

  /** Raw random bits, a pure function of the three: two words a number, the lower first. */
  function random_bits(seed, path, shape) {
    const text = new TextEncoder().encode(`${seed}|${path}|${shape.join(",")}`);
    const key = new DataView(sha256(text).buffer);
    return philox([0, 4, 8, 12].map((place) => key.getUint32(place, true)), size(shape));
  }

  /** Uniform on ±√(6 / (fan_in + fan_out)), float32, of a kernel (inputs, units). */
  function glorot_uniform(seed, path, shape) {
    const bits = random_bits(seed, path, shape), limit = Math.sqrt(6 / (shape[0] + shape[1]));
    const made = new Float32Array(size(shape));
    for (let i = 0; i < made.length; i++) {
      const k = bits[2 * i + 1] >>> 8; // the 24 highest bits
      made[i] = limit * ((2 * k + 1 - 2 ** 24) / 2 ** 24);
    }
    return made;
  }

  const known = new Map(); // θ0 that was made; all masks of this page lie over the same one

  function theta0([initializer, seed], path, shape) {
    if (initializer !== "glorot_uniform") throw new Error(`unknown initializer ${initializer}`);
    const name = `${seed}|${path}|${shape}`;
    if (!known.has(name)) known.set(name, glorot_uniform(seed, path, shape));
    return known.get(name);
  }

  /** SHA-256 of the bytes of several float32 arrays, one behind the other. */
  function digest(arrays) {
    const all = new Float32Array(arrays.reduce((sum, array) => sum + array.length, 0));
    let place = 0;
    for (const array of arrays) {
      all.set(array, place);
      place += array.length;
    }
    return hex(sha256(new Uint8Array(all.buffer)));
  }

  // --- masks that are not learned ----------------------------------------------------------------

  /** Each weight kept with the mask's density as its chance ("random"), or elements "shuffled". */
  function control(mask, kind, seed, path, shape) {
    const kept = mask.reduce((sum, bit) => sum + bit, 0), n = mask.length;
    if (kept === n) return mask;
    const bits = random_bits(seed, `${path}/${kind}`, shape);
    if (kind === "random") {
      const bound = (kept / n) * 2 ** 64, up = Math.floor(bound / 2 ** 32), low = bound % 2 ** 32;
      return mask.map((_, i) =>
        +(bits[2 * i + 1] < up || (bits[2 * i + 1] === up && bits[2 * i] < low)));
    }
    return argsort(bits).reduce((made, from, i) => { made[i] = mask[from]; return made; },
      new Int8Array(n));
  }

  /** Which of the 64-bit numbers comes first, second, …: by their four 16-bit digits, stable. */
  function argsort(bits) {
    const n = bits.length / 2;
    let order = Uint32Array.from({ length: n }, (_, i) => i), next = new Uint32Array(n);
    for (let digit = 0; digit < 4; digit++) {
      const at = (i) => (bits[2 * i + (digit >> 1)] >>> (16 * (digit & 1))) & 0xffff;
      const place = new Uint32Array(65537);
      for (let i = 0; i < n; i++) place[at(i) + 1]++;
      for (let value = 0; value < 65536; value++) place[value + 1] += place[value];
      for (const i of order) next[place[at(i)]++] = i;
      [order, next] = [next, order];
    }
    return order;
  }

  // --- packed files, as on the page "The format of a packed model" -------------------------------

  async function inflate(bytes) {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  /**
   * What a packed file holds: its header, and by path the masks (Int8Array), the values θ
   * (Float32Array: θ0's, or trained ones where the mask keeps them) and the weights M ⊙ θ.
   */
  async function read(data) {
    const view = new DataView(data.buffer, data.byteOffset, data.length);
    const [version, h, j, m, a] = [8, 12, 16, 20, 24].map((place) => view.getUint32(place, true));
    const whole = hex(data.subarray(0, 8)) === "89534d41534b0d0a" && version === 1
      && data.length === 60 + h + m + a;
    if (!whole || hex(sha256(data.subarray(0, -32))) !== hex(data.subarray(-32))) {
      throw new Error("damaged, or no packed model");
    }
    const text = await inflate(data.subarray(28, 28 + h));
    if (text.length !== j) throw new Error("its header is not as long as it says");
    const header = JSON.parse(new TextDecoder().decode(text));
    const words = Array.from({ length: m / 4 }, (_, k) => view.getUint32(28 + h + 4 * k, true));
    let raw = data.subarray(28 + h + m, -32);
    if (header.deflated) raw = await inflate(raw);
    const arrays = stored(raw, header.arrays), masks = {}, theta = {}, weights = {};
    for (const [{ path, shape, start, rescale }, mask] of decoded(words, header.weights)) {
      if (rescale) throw new Error("it rescales its weights, which this page does not");
      theta[path] = start ? theta0(start, path, shape) : new Float32Array(mask.length);
      if (arrays[path]) theta[path] = trained(theta[path], mask, arrays[path]);
      masks[path] = mask;
      weights[path] = masked(mask, theta[path]);
    }
    const starts = header.weights.filter((entry) => entry.start);
    const asked = JSON.stringify(starts.map((entry) => [entry.start, entry.path, entry.shape]));
    if (checked.get(asked) !== header.theta0) {
      const found = starts.map(({ start, path, shape }) => theta0(start, path, shape));
      checked.set(asked, digest(found));
    }
    if (checked.get(asked) !== header.theta0) throw new Error("θ0 comes out otherwise here");
    return { header, masks, theta, weights };
  }

  const checked = new Map(); // the digests of θ0 that were computed

  function stored(raw, entries) {
    const view = new DataView(raw.buffer, raw.byteOffset, raw.length), arrays = {};
    let place = 0;
    for (const { path, shape, dtype } of entries) {
      const bytes = { float32: 4, float16: 2 }[dtype];
      if (!bytes) throw new Error(`unknown type ${dtype}`);
      arrays[path] = Float32Array.from({ length: size(shape) }, (_, i) => (bytes === 4
        ? view.getFloat32(place + 4 * i, true) : float16(view.getUint16(place + 2 * i, true))));
      place += bytes * size(shape);
    }
    if (place !== raw.length) throw new Error("it stores more values than its header says");
    return arrays;
  }

  function float16(bits) {
    const sign = bits >> 15 ? -1 : 1, exponent = (bits >> 10) & 31, rest = bits & 1023;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + rest / 1024) : 2 ** -24 * rest);
  }

  /** The masks, one behind the other on a stack of words; a state of 64 bits is (up, low). */
  function* decoded(words, weights) {
    let up = 0, low = 0;
    const refill = () => { if (!up && words.length) [up, low] = [low, words.pop()]; };
    refill();
    refill();
    for (const entry of weights) {
      const { values, frequencies } = entry;
      const mask = new Int8Array(size(entry.shape)).fill(values[0]);
      for (let i = 0; i < mask.length && values.length > 1; i++) {
        const slot = low & 0xffffff;
        let symbol = 0, left = 0;
        while (slot >= left + frequencies[symbol]) left += frequencies[symbol++];
        mask[i] = values[symbol];
        // state = frequency · ⌊state / 2²⁴⌋ + slot − left: cut in two, each product is exact.
        const rest = up * 256 + (low >>> 24), r1 = Math.floor(rest / 2 ** 20), r0 = rest % 2 ** 20;
        const product = frequencies[symbol] * r1;
        const lower = (product % 4096) * 2 ** 20 + frequencies[symbol] * r0 + slot - left;
        up = Math.floor(product / 4096) + Math.floor(lower / 2 ** 32);
        low = lower >>> 0;
        if (!up && words.length) refill();
      }
      yield [entry, mask];
    }
    if (up || low || words.length) throw new Error("its masks are damaged");
  }

  /** θ with the trained values where the mask keeps them; of all weights, or of the kept ones. */
  function trained(theta, mask, values) {
    let k = 0;
    return theta.map((start, i) => (values.length === mask.length ? values[i]
      : mask[i] ? values[k++] : start));
  }

  const masked = (mask, theta) => theta.map((value, i) => mask[i] * value);

  // --- the network -------------------------------------------------------------------------------

  const LAYERS = [["dense1", 784, 300], ["dense2", 300, 100], ["dense3", 100, 10]];

  /** The outputs of each layer of LeNet-300-100, ending in logits, for pixels from 0 to 255. */
  function predict(weights, pixels) {
    const scale = Math.fround(2 / 255);
    let x = Float32Array.from(pixels, (value) => Math.fround(scale * value) - 1);
    return LAYERS.map(([name, inputs, units]) => {
      const kernel = weights[`${name}/kernel`], background = name === "dense1" ? -1 : 0;
      const sums = (background ? blank(kernel, units) : new Float64Array(units))
        .map((sum, j) => sum + weights[`${name}/bias`][j]);
      for (let i = 0; i < inputs; i++) {
        const above = x[i] - background;
        if (!above) continue; // most pixels, and the units that are silent
        for (let j = 0, k = i * units; j < units; j++, k++) sums[j] += above * kernel[k];
      }
      x = name === "dense3" ? sums : sums.map((sum) => Math.max(sum, 0));
      return x;
    });
  }

  const blanks = new WeakMap();

  /** What a black image, −1 everywhere, brings a layer's units: the same for all images. */
  function blank(kernel, units) {
    if (!blanks.has(kernel)) {
      const sums = new Float64Array(units);
      for (let k = 0; k < kernel.length; k++) sums[k % units] -= kernel[k];
      blanks.set(kernel, sums);
    }
    return blanks.get(kernel);
  }

  const argmax = (values) => values.indexOf(Math.max(...values));

  return {
    LAYERS, argmax, control, decoded, digest, float16, glorot_uniform, hex, inflate, masked, philox,
    predict, random_bits, read, sha256, theta0,
  };
})();

// =================================================================================================
// The page

const see = (() => {
  const root = document.getElementById("see");
  const $ = (name) => document.getElementById(`see-${name}`);
  const percent = (part) => `${Math.round(100 * part)}\u00a0%`;
  const thousands = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, ",");
  const pause = () => new Promise((resume) => setTimeout(resume));
  const DIGITS = 100, UNITS = 300, SIDE = 28;
  const NAMES = {
    mask: ["Supermask", "The supermask"],
    off: ["No mask", "The network without a mask"],
    random: ["Random mask", "The random mask"],
    shuffled: ["Shuffled mask", "The shuffled mask"],
    ticket: ["Lottery ticket’s mask", "The lottery ticket’s mask"],
    trained: ["Trained weights", "The ticket with its trained weights"],
  };

  // What the reader chose. `digit` is null while there is a drawing: strokes of points in pixels.
  const state = { kind: "mask", stop: 0, digit: 70, unit: 0, draw: 0, strokes: [] };
  const pen = { x: SIDE / 2, y: SIDE / 2, down: false, shown: false };
  let images = null; // the hundred digits: { pixels: Uint8Array, labels: Uint8Array }
  let now = null; // what is shown: { network, layers, pixels }

  // --- data --------------------------------------------------------------------------------------

  const bytes = (script) => Uint8Array.from(atob(script.textContent), (c) => c.charCodeAt(0));
  const files = [...document.querySelectorAll("script[data-see]")].map((script) => ({
    kind: script.dataset.see,
    density: +script.dataset.density,
    trained: "trained" in script.dataset,
    length: bytes(script).length,
    load: once(() => supermask.read(bytes(script))),
  }));
  // The slider's stops. At the last one nothing is masked, whatever the switch says.
  const stops = [...files.filter((file) => file.kind === "mask").map((file) => file.density), 1];
  const OPEN = stops.length - 1;

  function once(make) {
    let made;
    return () => (made ??= make());
  }

  /** The packed file that a switch needs at a stop of the slider, if the page has it. */
  function source(kind, stop) {
    const ticket = kind === "ticket" || kind === "trained";
    if (stop === OPEN) return ticket ? undefined : files.find((file) => file.kind === "mask");
    if (kind === "off") return undefined;
    return files.find((file) => file.kind === (ticket ? "ticket" : "mask")
      && file.density === stops[stop] && (kind !== "trained" || file.trained));
  }

  const available = (kind) => stops.map((_, k) => k).filter((k) => source(kind, k));

  /** The stop nearest to the wanted one that the switch has. */
  const nearest = (kind, stop) => available(kind).reduce(
    (best, k) => (Math.abs(k - stop) < Math.abs(best - stop) ? k : best));

  const networks = new Map();

  /** A network: its masks and weights by path, its density, its answers to the hundred digits. */
  function network(kind, stop, draw = 0) {
    const drawn = kind === "random" || kind === "shuffled";
    const name = stop === OPEN ? "off" : `${kind} ${stop} ${drawn ? draw : 0}`;
    if (!networks.has(name)) networks.set(name, made(stop === OPEN ? "off" : kind, stop, draw));
    return networks.get(name);
  }

  async function made(kind, stop, draw) {
    const file = await source(kind, stop).load(), masks = {}, weights = { ...file.weights };
    for (const { path, shape, start } of file.header.weights) {
      masks[path] = file.masks[path];
      if (kind === "off") masks[path] = masks[path].map(() => 1);
      if (kind === "random" || kind === "shuffled") {
        masks[path] = supermask.control(masks[path], kind, draw, path, shape);
      }
      if (kind === "trained") continue;
      weights[path] = start
        ? supermask.masked(masks[path], supermask.theta0(start, path, shape))
        : new Float32Array(masks[path].length);
    }
    const kernels = Object.keys(masks).filter((path) => path.endsWith("/kernel"));
    const total = (counted) => kernels.reduce((sum, path) => sum + counted(masks[path]), 0);
    const density = total((mask) => mask.reduce((a, b) => a + b, 0)) / total((mask) => mask.length);
    const answers = Uint8Array.from({ length: DIGITS },
      (_, k) => supermask.argmax(supermask.predict(weights, digit(k))[2]));
    const right = answers.filter((answer, k) => answer === images.labels[k]).length;
    return { kind, masks, weights, density, answers, right };
  }

  const digit = (k) => images.pixels.subarray(k * SIDE * SIDE, (k + 1) * SIDE * SIDE);

  // --- drawing -----------------------------------------------------------------------------------

  const BRUSH = 1.1; // radius, in pixels of the image

  /** Strokes as an image: a pixel is as bright as a soft round brush makes it. */
  function raster(strokes) {
    const image = new Uint8Array(SIDE * SIDE);
    const segments = strokes.flatMap((points) =>
      points.map((to, k) => [points[Math.max(k - 1, 0)], to]));
    for (let i = 0; i < image.length; i++) {
      const x = i % SIDE + 0.5, y = Math.floor(i / SIDE) + 0.5;
      let least = Infinity;
      for (const [[ax, ay], [bx, by]] of segments) {
        const dx = bx - ax, dy = by - ay, length = dx * dx + dy * dy;
        const t = length && Math.min(1, Math.max(0, ((x - ax) * dx + (y - ay) * dy) / length));
        least = Math.min(least, Math.hypot(x - ax - t * dx, y - ay - t * dy));
      }
      image[i] = 255 * Math.min(1, Math.max(0, BRUSH + 0.5 - least));
    }
    return image;
  }

  /** A drawing as MNIST has it: 20 pixels at its larger side, the centre of mass in the middle. */
  function normalised(strokes) {
    const points = strokes.flat();
    if (!points.length) return new Uint8Array(SIDE * SIDE);
    const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
    const middle = (values) => (Math.min(...values) + Math.max(...values)) / 2;
    const extent = Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys));
    const scale = Math.min((20 - 2 * BRUSH) / extent, 4); // a dot stays one
    const moved = (dx, dy) => strokes.map((stroke) => stroke.map(([x, y]) => [
      (x - middle(xs)) * scale + dx, (y - middle(ys)) * scale + dy]));
    const image = raster(moved(SIDE / 2, SIDE / 2));
    let mass = 0, sumX = 0, sumY = 0;
    image.forEach((value, i) => {
      mass += value;
      sumX += value * (i % SIDE + 0.5);
      sumY += value * (Math.floor(i / SIDE) + 0.5);
    });
    return raster(moved(SIDE - sumX / mass, SIDE - sumY / mass));
  }

  function startStroke(point) {
    if (state.digit !== null) [state.digit, state.strokes] = [null, []];
    state.strokes.push([point]);
  }

  function clear() {
    Object.assign(state, { digit: null, strokes: [] });
    pen.down = false;
    show();
  }

  function listenToPad() {
    const pad = $("pad");
    const point = (event) => {
      const box = pad.getBoundingClientRect(), scale = SIDE / box.width;
      return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    };
    let drawing = false;
    pad.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      drawing = true;
      pen.shown = pen.down = false;
      pad.setPointerCapture(event.pointerId);
      startStroke(point(event));
      soon();
    });
    pad.addEventListener("pointermove", (event) => {
      if (!drawing) return;
      for (const each of event.getCoalescedEvents?.() ?? []) state.strokes.at(-1).push(point(each));
      state.strokes.at(-1).push(point(event));
      soon();
    });
    const stop = () => { drawing = false; show(); };
    pad.addEventListener("pointerup", stop);
    pad.addEventListener("pointercancel", stop);
    pad.addEventListener("blur", () => { pen.shown = pen.down = false; soon(); });
    pad.addEventListener("keydown", (event) => {
      const step = {
        ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
      }[event.key];
      if (step) {
        pen.x = Math.min(SIDE - 1, Math.max(1, pen.x + step[0]));
        pen.y = Math.min(SIDE - 1, Math.max(1, pen.y + step[1]));
        if (pen.down) state.strokes.at(-1).push([pen.x, pen.y]);
      } else if (event.key === " ") {
        pen.down = !pen.down;
        if (pen.down) startStroke([pen.x, pen.y]);
      } else if (event.key === "Delete" || event.key === "Backspace") {
        clear();
      } else {
        return;
      }
      pen.shown = true;
      event.preventDefault();
      soon();
    });
  }

  // --- pictures ----------------------------------------------------------------------------------

  const colour = (name) => getComputedStyle(root).getPropertyValue(`--see-${name}`).trim();

  /** A colour as the 32 bits of a pixel, mixed with another. */
  function pixel(name, other = name, part = 0) {
    const channel = (hex, k) => parseInt(hex.slice(1 + 2 * k, 3 + 2 * k), 16);
    const [a, b] = [colour(name), colour(other)]; // all are written as #rrggbb
    const mix = (k) => Math.round(channel(a, k) * (1 - part) + channel(b, k) * part);
    return (255 << 24 | mix(2) << 16 | mix(1) << 8 | mix(0)) >>> 0;
  }

  /** Fill a canvas by a function of the place. */
  function paint(canvas, width, height, at) {
    Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d"), data = context.createImageData(width, height);
    const out = new Uint32Array(data.data.buffer);
    for (let y = 0, k = 0; y < height; y++) for (let x = 0; x < width; x++) out[k++] = at(x, y);
    context.putImageData(data, 0, 0);
    return context;
  }

  /** 256 shades from one colour to another. */
  const shades = (from, to) =>
    Uint32Array.from({ length: 256 }, (_, value) => pixel(from, to, value / 255));

  const CELL = 20; // of the large pictures

  function drawPad() {
    const ink = shades("paper", "ink");
    const shown = state.digit === null ? raster(state.strokes) : now.pixels;
    const context = paint($("pad"), SIDE * CELL, SIDE * CELL,
      (x, y) => ink[shown[Math.floor(y / CELL) * SIDE + Math.floor(x / CELL)]]);
    if (pen.shown) {
      context.strokeStyle = colour("bad-line");
      context.lineWidth = 5;
      context.beginPath();
      context.arc(pen.x * CELL, pen.y * CELL, pen.down ? 0.6 * CELL : 1.2 * CELL, 0, 7);
      context.stroke();
    }
    paint($("seen"), 2 * SIDE, 2 * SIDE, (x, y) => ink[now.pixels[(y >> 1) * SIDE + (x >> 1)]]);
  }

  /** The chosen unit's weights: a square each, as large as the weight, but for those off. */
  function drawUnit() {
    const { network, pixels } = now, kernel = network.weights["dense1/kernel"];
    const mask = network.masks["dense1/kernel"], ink = shades("paper", "line");
    const context = paint($("unit"), SIDE * CELL, SIDE * CELL,
      (x, y) => ink[pixels[Math.floor(y / CELL) * SIDE + Math.floor(x / CELL)]]);
    let largest = 1e-9, kept = 0;
    for (let i = 0; i < SIDE * SIDE; i++) {
      largest = Math.max(largest, Math.abs(kernel[i * UNITS + state.unit]));
      kept += mask[i * UNITS + state.unit];
    }
    const [plus, minus] = [colour("plus"), colour("minus")];
    for (let i = 0; i < SIDE * SIDE; i++) {
      const value = kernel[i * UNITS + state.unit];
      if (!value) continue;
      const side = CELL * (0.2 + 0.7 * Math.sqrt(Math.abs(value) / largest));
      context.fillStyle = value > 0 ? plus : minus;
      const left = (i % SIDE + 0.5) * CELL - side / 2;
      context.fillRect(left, (Math.floor(i / SIDE) + 0.5) * CELL - side / 2, side, side);
    }
    const output = now.layers[0][state.unit];
    $("unit").setAttribute("aria-label", `The weights of unit ${state.unit + 1} over the digit`);
    $("unit-says").textContent = `Unit ${state.unit + 1} keeps ${kept} of its 784 weights. `
      + (output > 0 ? `Here it answers ${output.toFixed(2)}.` : "Here it is silent.");
    $("number").value = state.unit + 1;
  }

  const columns = () => (root.clientWidth < 620 ? 15 : 20);

  function drawUnits() {
    const mask = now.network.masks["dense1/kernel"], tile = 2 * SIDE + 4;
    const across = columns(), down = Math.ceil(UNITS / across);
    const [kept, out, paper] = [pixel("kept"), pixel("out"), pixel("paper")];
    const context = paint($("units"), across * tile, down * tile, (x, y) => {
      const px = (x % tile - 2) >> 1, py = (y % tile - 2) >> 1;
      if (px < 0 || py < 0 || px >= SIDE || py >= SIDE) return paper;
      const unit = Math.floor(y / tile) * across + Math.floor(x / tile);
      return mask[(py * SIDE + px) * UNITS + unit] ? kept : out;
    });
    choose(context, state.unit, across, tile);
    const units = $("units");
    units.setAttribute("aria-valuenow", state.unit + 1);
    units.setAttribute("aria-valuetext", `Unit ${state.unit + 1}`);
  }

  function drawDigits() {
    const tile = 60, scale = 2, edge = (tile - scale * SIDE) / 2;
    const good = shades("paper", "ink"), bad = shades("bad", "ink"), { answers } = now.network;
    const wrong = (k) => answers[k] !== images.labels[k];
    const context = paint($("digits"), 10 * tile, 10 * tile, (x, y) => {
      const k = Math.floor(y / tile) * 10 + Math.floor(x / tile);
      const px = (x % tile - edge) >> 1, py = (y % tile - edge) >> 1;
      const inside = px >= 0 && py >= 0 && px < SIDE && py < SIDE;
      return (wrong(k) ? bad : good)[inside ? images.pixels[k * SIDE * SIDE + py * SIDE + px] : 0];
    });
    context.strokeStyle = colour("bad-line");
    context.lineWidth = 4;
    for (let k = 0; k < DIGITS; k++) { // not by colour alone
      if (!wrong(k)) continue;
      context.beginPath();
      context.moveTo(k % 10 * tile + tile - 16, Math.floor(k / 10) * tile + 4);
      context.lineTo(k % 10 * tile + tile - 4, Math.floor(k / 10) * tile + 16);
      context.stroke();
    }
    if (state.digit !== null) choose(context, state.digit, 10, tile);
    const digits = $("digits"), k = state.digit ?? 0;
    digits.setAttribute("aria-valuenow", k + 1);
    digits.setAttribute("aria-valuetext", state.digit === null ? "your drawing"
      : `Digit ${k + 1}, ${a(images.labels[k])}, read as ${answers[k]}`);
  }

  function choose(context, k, across, tile) {
    context.strokeStyle = colour("focus");
    context.lineWidth = 5;
    const left = k % across * tile, top = Math.floor(k / across) * tile;
    context.strokeRect(left + 1, top + 1, tile - 2, tile - 2);
  }

  // --- words and numbers -------------------------------------------------------------------------

  function drawOutputs() {
    const outputs = now.layers[2], most = Math.max(...outputs), best = supermask.argmax(outputs);
    const powers = Array.from(outputs, (value) => Math.exp(value - most));
    const total = powers.reduce((a, b) => a + b), empty = blankPad();
    powers.forEach((power, k) => {
      const [, bar, text] = $("outputs").children[k].children;
      $("outputs").children[k].className = k === best && !empty ? "see-best" : "";
      bar.firstChild.style.width = empty ? "0" : `${100 * power / total}%`;
      text.textContent = empty ? "" : percent(power / total);
    });
  }

  const blankPad = () => state.digit === null && !state.strokes.length;
  const a = (n) => `${n === 8 ? "an" : "a"} ${n}`;

  function say() {
    const { network, layers } = now, answer = supermask.argmax(layers[2]);
    const [, name] = NAMES[network.kind];
    const label = state.digit === null ? null : images.labels[state.digit];
    const which = network.kind === "off" ? name : `${name} (${percent(network.density)} kept)`;
    const reads = blankPad() ? `${which} waits for a digit.`
      : label === null ? `${which} reads your drawing as ${a(answer)}.`
        : answer === label ? `${which} reads ${a(answer)}, and it is one.`
          : `${which} reads ${a(answer)}. It is ${a(label)}.`;
    const text = `${reads} Of the hundred digits it reads\u00a0${network.right}.`;
    if ($("says").textContent !== text) $("says").textContent = text;
  }

  function drawSlider() {
    const range = $("kept"), there = available(state.kind);
    range.value = now.stop;
    range.disabled = there.length < 2;
    $("fraction").textContent = percent(now.network.density);
    range.setAttribute("aria-valuetext", `${percent(now.network.density)} kept`);
    [...document.querySelectorAll(".see-ticks span")].forEach((tick, k) => {
      tick.className = !there.includes(k) ? "see-none" : k === now.stop ? "see-here" : "";
    });
    $("again").hidden = !["random", "shuffled"].includes(state.kind);
  }

  function markTable() {
    for (const cell of $("table").querySelectorAll("td")) {
      const here = cell.dataset.at === `${state.kind} ${now.stop}`;
      cell.classList.toggle("see-now", here);
      if (here) cell.textContent = now.network.right;
    }
  }

  function makeTable() {
    const cell = (tag, textContent, scope) =>
      Object.assign(document.createElement(tag), { textContent }, scope && { scope });
    const head = document.createElement("tr");
    head.append(cell("th", "Fraction kept", "col"),
      ...stops.map((density) => cell("th", percent(density), "col")));
    $("table").tHead.append(head);
    for (const [kind, [name]] of Object.entries(NAMES)) {
      const row = document.createElement("tr");
      row.append(cell("th", name, "row"));
      row.append(...stops.map((_, stop) => {
        const there = source(kind, stop), data = cell("td", there ? "…" : "–");
        if (there) data.dataset.at = `${kind} ${stop}`;
        return data;
      }));
      $("table").tBodies[0].append(row);
    }
  }

  /** Fill the table, a network at a time, so that the page stays quick. */
  async function fillTable() {
    for (const cell of $("table").querySelectorAll("td[data-at]")) {
      const [kind, stop] = cell.dataset.at.split(" ");
      cell.textContent = (await network(kind, +stop)).right;
      await pause();
    }
    if (state.draw) markTable();
  }

  // --- showing what was chosen -------------------------------------------------------------------

  let shown = null, asked = 0, waiting = false, later = 0;

  /** Draw once a frame at most, and say what is read when the drawing rests. */
  function soon() {
    clearTimeout(later);
    later = setTimeout(show, 400);
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      show({ words: false });
    });
  }

  async function show({ words = true } = {}) {
    const turn = ++asked, stop = nearest(state.kind, state.stop);
    const chosen = await network(state.kind, stop, state.draw);
    if (turn !== asked) return words && show(); // something else was chosen meanwhile
    const pixels = state.digit === null ? normalised(state.strokes) : digit(state.digit);
    now = { network: chosen, stop, pixels, layers: supermask.predict(chosen.weights, pixels) };
    drawPad();
    drawUnit();
    drawOutputs();
    drawDigits();
    const view = [state.kind, stop, state.unit, columns(), colour("paper")].join();
    if (shown?.network !== chosen || shown.view !== view) {
      drawUnits();
      drawSlider();
      markTable();
    }
    shown = { network: chosen, view };
    if (words) say();
  }

  function listen() {
    const set = (changes) => { Object.assign(state, changes); return show(); };
    for (const radio of root.querySelectorAll("[name=see-switch]")) {
      radio.addEventListener("change", () => set({ kind: radio.value, draw: 0 }));
      if (radio.checked) state.kind = radio.value; // a browser may remember it
    }
    $("kept").addEventListener("input", () => set({ stop: +$("kept").value }));
    $("again").addEventListener("click", () => set({ draw: state.draw + 1 }));
    $("clear").addEventListener("click", clear);
    const pick = (k) => set({ digit: (k + DIGITS) % DIGITS, strokes: [] });
    const turn = (by) => pick((state.digit ?? (by > 0 ? -1 : 0)) + by);
    $("previous").addEventListener("click", () => turn(-1));
    $("next").addEventListener("click", () => turn(1));
    $("number").addEventListener("change", () => {
      const unit = Math.round(+$("number").value) - 1;
      set({ unit: Math.min(UNITS - 1, Math.max(0, unit || 0)) });
    });
    grid($("digits"), DIGITS, () => 10, () => state.digit ?? 0, pick);
    grid($("units"), UNITS, columns, () => state.unit, (k) => set({ unit: k }));
    listenToPad();
    new MutationObserver(() => show())
      .observe(document.documentElement, { attributeFilter: ["data-theme"] });
    let across = columns();
    addEventListener("resize", () => { if (across !== (across = columns())) show(); });
  }

  /** A canvas of tiles, from which one is chosen by a click or by keys. */
  function grid(canvas, count, across, chosen, pick) {
    canvas.addEventListener("click", (event) => {
      const box = canvas.getBoundingClientRect(), down = Math.ceil(count / across());
      const x = Math.floor((event.clientX - box.left) / box.width * across());
      const y = Math.floor((event.clientY - box.top) / box.height * down);
      pick(Math.min(count - 1, Math.max(0, y * across() + x)));
    });
    canvas.addEventListener("keydown", (event) => {
      const k = chosen(), row = across();
      const to = { ArrowLeft: k - 1, ArrowRight: k + 1, ArrowUp: k - row, ArrowDown: k + row,
        Home: 0, End: count - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      if (to >= 0 && to < count) pick(to);
    });
  }

  async function start() {
    const started = performance.now();
    for (const [name, inputs, units] of supermask.LAYERS) {
      supermask.theta0(["glorot_uniform", 0], `${name}/kernel`, [inputs, units]);
    }
    const made = performance.now();
    const inflated = await supermask.inflate(bytes($("sprite")));
    images = { labels: inflated.subarray(0, DIGITS), pixels: inflated.subarray(DIGITS) };
    state.stop = OPEN - 1;
    for (let k = 0; k < 10; k++) {
      const row = document.createElement("li");
      row.innerHTML = `<span>${k}</span><span class="see-bar"><i></i></span><span></span>`;
      $("outputs").append(row);
    }
    document.querySelector(".see-ticks").append(...stops.map((density) =>
      Object.assign(document.createElement("span"), { textContent: percent(density) })));
    $("kept").max = OPEN;
    makeTable();
    const file = source("mask", state.stop), before = performance.now();
    const { header } = await file.load(), after = performance.now();
    root.hidden = false;
    listen();
    await show();
    const theta = supermask.LAYERS.reduce((sum, [, inputs, units]) => sum + inputs * units, 0);
    $("proof").textContent = `What happened on this device: ${thousands(theta)} weights were made `
      + `from the seed 0 in ${Math.round(made - started)} ms. `
      + `The supermask, ${thousands(file.length)} bytes, was read and checked in `
      + `${Math.round(after - before)} ms. `
      + `The SHA-256 of θ0 is ${header.theta0.slice(0, 8)}…, as the file asks. No weights were `
      + "loaded, but for the switch that says so.";
    await fillTable();
  }

  const ready = start().catch((error) => {
    // An old browser, or a damaged page: the still picture takes the place.
    const still = document.getElementById("see-still");
    root.hidden = true;
    root.insertAdjacentHTML("afterend", still ? still.textContent : "");
    console.error(error);
  });

  return { digit, files, network, normalised, ready, source, state, stops };
})();
