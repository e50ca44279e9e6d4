// A photograph from the camera, in a dialog with a live picture.

/**
 * Show the camera until the dialog is closed.
 * @param {HTMLDialogElement} dialog holds a video; it is closed with "taken" to take the picture
 * @returns {Promise<?Blob>} null where no picture was taken
 * @throws where the browser gives the page no camera
 */
export async function photograph(dialog) {
  const video = dialog.querySelector("video");
  const stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment"}});
  video.srcObject = stream;
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((closed) => dialog.addEventListener("close", closed, {once: true}));
  const shot = Object.assign(document.createElement("canvas"), {width: video.videoWidth, height: video.videoHeight});
  shot.getContext("2d").drawImage(video, 0, 0);
  for (const track of stream.getTracks()) track.stop();
  video.srcObject = null;
  return dialog.returnValue === "taken" ? new Promise((made) => shot.toBlob(made)) : null;
}
