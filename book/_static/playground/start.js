// Starts the playground where the page came from a server; from disk, browsers run no modules.

if (location.protocol === "file:") {
  document.getElementById("pg-disk").hidden = false;
} else {
  import("./page.js");
}
