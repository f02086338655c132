// The page: an image comes in, is classified by engine.js, and the answer is shown.

import { about, classify } from "./engine.js";

const element = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)}%`;

let model;
let latest = 0; // the number of the last image, so that a late answer to an earlier one is dropped
let answer;
let chosen = 0; // the class whose map is shown

async function start() {
  try {
    model = await about();
  } catch {
    say("The server does not answer. Is it still running?", true);
    return;
  }
  document.title = `Classify an image: ${model.classes.length} classes`;
  element("about").textContent = `${model.workdir}, step ${model.step.toLocaleString()}, ${model.classes.length.toLocaleString()} classes`;
}

function say(text, isError = false) {
  element("status").textContent = text;
  element("status").classList.toggle("error", isError);
}

async function show(file) {
  const number = ++latest;
  say("Classifying …");
  try {
    const found = await classify(file, model);
    if (number !== latest) return;
    answer = found;
    chosen = 0;
    say(`${answer.predictions[0].class}, ${percent(answer.predictions[0].probability)}`);
    draw();
  } catch (error) {
    if (number !== latest) return;
    element("result").hidden = true;
    say(error instanceof TypeError ? "The server does not answer. Is it still running?" : error.message, true);
  }
}

function draw() {
  const hasMaps = answer.predictions.some((each) => each.heatmap);
  element("show-map").parentElement.hidden = !hasMaps;
  const fieldset = element("classes");
  fieldset.replaceChildren(fieldset.querySelector("legend"), ...answer.predictions.map(row));
  drawChosen();
  element("result").hidden = false;
}

function row(prediction, index) {
  const label = document.createElement("label");
  label.className = "class";
  label.style.setProperty("--share", percent(prediction.probability));
  const radio = document.createElement("input");
  radio.type = "radio";
  radio.name = "class";
  radio.checked = index === chosen;
  radio.addEventListener("change", () => { chosen = index; drawChosen(); });
  const name = document.createElement("bdi");
  name.textContent = prediction.class;
  const share = document.createElement("span");
  share.className = "share";
  share.textContent = percent(prediction.probability);
  label.append(radio, name, share);
  return label;
}

function drawChosen() {
  const prediction = answer.predictions[chosen];
  element("show-map").parentElement.hidden = !prediction.heatmap; // a network without maps
  const withMap = element("show-map").checked && prediction.heatmap;
  element("image").src = withMap ? prediction.heatmap : answer.image;
  element("image").alt = withMap ? `The image with the class activation map of ${prediction.class}` : "The image";
  element("caption").textContent = withMap ? `Warm colors are evidence for ${prediction.class}; gray lies outside the crop that the network is applied to.` : "";
  const nearest = element("nearest");
  nearest.replaceChildren();
  if (!prediction.nearest?.length) return;
  const title = document.createElement("h2");
  title.textContent = `Training images of ${prediction.class} that are most similar`;
  const list = document.createElement("div");
  list.className = "thumbnails";
  for (const each of prediction.nearest) {
    const figure = document.createElement("figure");
    const image = document.createElement("img");
    image.src = each.image;
    image.alt = each.name;
    const caption = document.createElement("figcaption");
    caption.textContent = `similarity ${each.similarity.toFixed(2)}`;
    figure.append(image, caption);
    list.append(figure);
  }
  nearest.append(title, list);
}

element("show-map").addEventListener("change", drawChosen);

for (const id of ["file", "photo"]) {
  element(id).addEventListener("change", () => {
    const [file] = element(id).files;
    if (file) show(file);
    element(id).value = ""; // so that the same file can be chosen again
  });
}

addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) show(file);
  else say("What was dropped is not a file: save the image first.", true);
});
addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) show(file);
});

// The camera of this device. Browsers offer it to pages of the same machine, and to those over https.
if (navigator.mediaDevices?.getUserMedia) {
  element("open-camera").hidden = false;
  element("photo").parentElement.hidden = true;
}
element("open-camera").addEventListener("click", async () => {
  try {
    element("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    say("There is no camera that this page may use.", true);
    return;
  }
  element("camera").hidden = false;
  await element("video").play(); // before that, it has no size
  element("take").disabled = false;
});
element("take").addEventListener("click", () => {
  const video = element("video");
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob(show, "image/jpeg", 0.95);
});
element("close-camera").addEventListener("click", () => {
  for (const track of element("video").srcObject.getTracks()) track.stop();
  element("camera").hidden = true;
  element("take").disabled = true;
});

start();
