// Search in pages that are opened from files: browsers start no workers there, so a hidden frame runs the worker's script.
if (location.protocol === "file:") {
    window.Worker = class extends EventTarget {
        constructor(url) {
            super();
            const frame = document.createElement("iframe");
            frame.hidden = true;
            document.body.appendChild(frame);
            this.inside = frame.contentWindow;
            this.ready = new Promise((resolve) => {
                const page = this.inside.document;
                page.open();
                this.inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
                const script = page.createElement("script");
                script.onload = resolve;
                script.src = url;
                page.appendChild(page.createElement("html")).appendChild(script);
                page.close();
            });
        }

        postMessage(data) {
            this.ready.then(() => this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data })));
        }

        terminate() {
            this.inside.frameElement.remove();
        }
    };
}
