// Asks the server that the page comes from.

export async function about() {
  return (await fetch("model")).json();
}

// Classifies the bytes of an image. Returns {image, predictions: [{class, probability, heatmap, nearest}]}.
export async function classify(file, model) {
  if (file.size > model.max_bytes) {
    throw new Error(`the image has ${file.size.toLocaleString()} bytes, and may have ${model.max_bytes.toLocaleString()}`);
  }
  const type = file.type.startsWith("image/") ? file.type : "application/octet-stream";
  const response = await fetch(`predict?heatmaps=1&nearest=${model.nearest}`, {
    method: "POST", headers: { "Content-Type": type }, body: file,
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}
