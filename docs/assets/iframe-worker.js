// A Worker that runs in a hidden frame: a page that is opened from disk may not start a real one, and search needs it.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.inside = frame.contentWindow;
      window.addEventListener("message", (event) => {
        if (event.source !== this.inside) return;
        const copy = new MessageEvent("message", { data: event.data });
        this.dispatchEvent(copy);
        this.onmessage?.(copy);
      });
      const answer = "<script>postMessage = (data) => parent.postMessage(data, '*');</" + "script>";
      this.inside.document.open();
      this.inside.document.write(`${answer}<script src="${url}"></` + "script>");
      this.inside.document.close();
      this.ready = new Promise((resolve) => (this.inside.onload = resolve));
    }

    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data: structuredClone(data) })));
    }
  };
}
