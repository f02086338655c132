"use strict";
const TOP = 5, OPACITY = 0.55;
const $ = id => document.getElementById(id);
const facts = JSON.parse($("facts").textContent);
const geometry = facts.geometry;
let session = null, shown = null, latest = 0;

const bytesOf = id => Uint8Array.from(atob($(id).textContent), c => c.charCodeAt(0));

async function load() {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = bytesOf("program").buffer;
  const module = new Blob([bytesOf("module")], {type: "text/javascript"});
  ort.env.wasm.wasmPaths = {mjs: URL.createObjectURL(module)};
  return ort.InferenceSession.create(bytesOf("model"), {executionProviders: ["wasm"]});
}

// As Python's round.
function rounded(x) {
  const floor = Math.floor(x);
  return x - floor === 0.5 ? floor + floor % 2 : Math.round(x);
}

// Draws the part of an image that the network is applied to, as the run crops its test images.
function cropped(bitmap) {
  const {resize, crop} = geometry, width = bitmap.width;
  const height = Math.max(1, bitmap.height - geometry.cut_bottom);
  let rows = resize, columns = resize, tall = resize, wide = resize;
  if (geometry.resize_method === "crop") {
    const short = Math.min(height, width);
    rows = tall = Math.trunc(resize * height / short);
    columns = wide = Math.trunc(resize * width / short);
  } else if (geometry.resize_method === "pad") {
    const long = Math.max(height, width);
    rows = Math.max(1, Math.trunc(resize * height / long));
    columns = Math.max(1, Math.trunc(resize * width / long));
  }
  const top = Math.trunc((tall - rows) / 2) - rounded(0.5 * (tall - crop));
  const left = Math.trunc((wide - columns) / 2) - rounded(0.5 * (wide - crop));
  const canvas = new OffscreenCanvas(crop, crop);
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.fillStyle = `rgb(${geometry.padding.join(" ")})`;
  context.fillRect(0, 0, crop, crop);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height, left, top, columns, rows);
  return context.getImageData(0, 0, crop, crop);
}

async function outputsOf(image) {
  const pixels = new Uint8Array(image.width * image.height * 3);
  for (let i = 0, j = 0; i < image.data.length; i += 4) {
    for (let c = 0; c < 3; c++) pixels[j++] = image.data[i + c];
  }
  const tensor = new ort.Tensor("uint8", pixels, [1, image.height, image.width, 3]);
  return session.run({image: tensor});
}

// A polynomial that is close to the color map Turbo.
function turbo(x) {
  const powers = [1, x, x ** 2, x ** 3, x ** 4, x ** 5];
  return [
    [0.13572138, 4.61539260, -42.66032258, 132.13108234, -152.94239396, 59.28637943],
    [0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604],
    [0.10667330, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973],
  ].map(row => 255 * Math.min(1, Math.max(0, row.reduce((sum, a, i) => sum + a * powers[i], 0))));
}

// The map of a class at each pixel: cell (i, j) is centered at pixel origin + stride · (i, j).
function heatOf(maps, name, size) {
  const [, rows, columns, classes] = maps.dims;
  const at = (i, j) => Math.max(0, maps.data[(i * columns + j) * classes + name]);
  const places = count => Array.from({length: size}, (_, pixel) => {
    const cell = Math.min(count - 1, Math.max(0, (pixel - geometry.origin) / geometry.stride));
    const first = Math.min(Math.floor(cell), Math.max(0, count - 2));
    return [first, Math.min(first + 1, count - 1), cell - first];
  });
  const down = places(rows), across = places(columns), heat = new Float32Array(size * size);
  down.forEach(([i, k, y], row) => across.forEach(([j, l, x], column) => {
    const upper = at(i, j) * (1 - x) + at(i, l) * x, lower = at(k, j) * (1 - x) + at(k, l) * x;
    heat[row * size + column] = upper * (1 - y) + lower * y;
  }));
  return heat;
}

function draw() {
  const {image, outputs, selected} = shown, canvas = $("image");
  const pixels = new ImageData(new Uint8ClampedArray(image.data), image.width, image.height);
  if (outputs.maps && $("heat").checked) {
    const heat = heatOf(outputs.maps, selected, image.width);
    const highest = heat.reduce((a, b) => Math.max(a, b), 1e-30);
    const colors = Array.from({length: 256}, (_, level) => turbo(level / 255));
    heat.forEach((value, i) => {
      const color = colors[Math.round(255 * value / highest)];
      for (let c = 0; c < 3; c++) {
        pixels.data[4 * i + c] = (1 - OPACITY) * pixels.data[4 * i + c] + OPACITY * color[c];
      }
    });
  }
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

function list() {
  const {outputs, order, selected} = shown;
  $("classes").replaceChildren(...order.map(index => {
    const button = document.createElement("button"), row = document.createElement("li");
    const share = `${(100 * outputs.probabilities.data[index]).toFixed(1)}%`;
    for (const text of [facts.class_names[index], share]) {
      button.append(Object.assign(document.createElement("span"), {textContent: text}));
    }
    button.type = "button";
    button.style.setProperty("--share", share);
    button.setAttribute("aria-pressed", index === selected);
    button.addEventListener("click", () => {
      shown.selected = index;
      list();
      $("classes").children[order.indexOf(index)].firstChild.focus();
      draw();
    });
    row.append(button);
    return row;
  }));
}

async function classify(file) {
  const number = ++latest;
  $("status").textContent = "Classifying …";
  try {
    session ??= await loading;
    const image = cropped(await createImageBitmap(file, {imageOrientation: "from-image"}));
    const outputs = await outputsOf(image);
    if (number !== latest) return;  // another image was given meanwhile
    const values = outputs.probabilities.data;
    const order = [...values.keys()].sort((a, b) => values[b] - values[a]).slice(0, TOP);
    shown = {image, outputs, order, selected: order[0]};
    $("results").hidden = false;
    $("switch").hidden = !outputs.maps;
    list();
    draw();
    $("status").textContent = `${facts.class_names[order[0]]}, ${(100 * values[order[0]]).toFixed(1)}%`;
  } catch (error) {
    if (number === latest) $("status").textContent = `This file cannot be used as an image (${error.message}).`;
  }
}

const imageIn = items => [...(items ?? [])].find(file => file.type.startsWith("image/"));

for (const id of ["file", "camera"]) {
  $(id).addEventListener("change", event => {
    if (event.target.files[0]) classify(event.target.files[0]);
    event.target.value = "";
  });
}
$("heat").addEventListener("change", draw);
document.addEventListener("paste", event => {
  const file = imageIn(event.clipboardData.files);
  if (file) classify(file);
});
document.addEventListener("dragover", event => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", () => document.body.classList.remove("over"));
document.addEventListener("drop", event => {
  event.preventDefault();
  document.body.classList.remove("over");
  const file = event.dataTransfer.files[0];
  if (file) classify(file);
});

const loading = load();
loading.then(
  loaded => {
    session = loaded;
    if (!latest) $("status").textContent = "Ready.";
  },
  error => {
    $("status").textContent = `The network could not be loaded (${error.message}).`;
  },
);
