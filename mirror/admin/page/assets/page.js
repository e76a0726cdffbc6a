// Brings what has changed while the page is looked at. All of it is there without this script: the
// link "Reload" gets the same.
"use strict";
(() => {
  const parts = document.querySelectorAll("[data-part], [data-live]");
  const button = document.getElementById("pause");
  const status = document.getElementById("updates");
  if (parts.length === 0 || !button) return;

  const live = document.querySelector("[data-live]");
  let paused = false, events = null, timer = 0, busy = false, moved = true;

  // morph makes old equal to next. Elements that are equal stay, with their focus and selection.
  const morph = (old, next) => {
    if (old.isEqualNode(next)) return;
    if (old.nodeType !== Node.ELEMENT_NODE || old.nodeName !== next.nodeName) {
      old.replaceWith(next);
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (!next.hasAttribute(name) && name !== "open") old.removeAttribute(name);
    }
    for (const { name, value } of next.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const have = [...old.childNodes], want = [...next.childNodes];
    want.forEach((node, i) => (i < have.length ? morph(have[i], node) : old.append(node)));
    have.slice(want.length).forEach((node) => node.remove());
  };

  const say = (text) => {
    if (status.textContent !== text) status.textContent = text;
  };

  // get brings the parts of a page, and leaves those that the page does not have.
  const get = async (url, wanted) => {
    if (busy) return;
    busy = true;
    try {
      const answer = await fetch(url, { headers: { Accept: "text/html" }, cache: "no-store" });
      if (!answer.ok) throw new Error(answer.statusText);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const old of document.querySelectorAll(wanted)) {
        const next = page.getElementById(old.id);
        if (next && !paused) morph(old, next);
      }
      if (!paused) say("Updated continuously");
    } catch {
      if (!paused) say("No answer; trying again");
    } finally {
      busy = false;
    }
  };

  const everything = () => get(location.href, "[data-part], [data-live]");

  const listen = () => {
    events = new EventSource("/api/v1/live/events");
    events.onmessage = (event) => {
      const now = JSON.parse(event.data);
      const moves = now.pulls.length + now.pushes.length > 0;
      if (moves || moved) get(live.dataset.live, "[data-live], #asof");
      moved = moves;
    };
    // A stream that is refused, because too many are open, is not opened again by the browser. The
    // timer brings the page nevertheless.
  };

  const stop = () => {
    clearInterval(timer);
    timer = 0;
    if (events) events.close();
    events = null;
  };

  const start = () => {
    if (timer) return;
    timer = setInterval(everything, 5000);
    if (live) listen();
  };

  // A page that nobody looks at holds no connection.
  const decide = () => (paused || document.hidden ? stop() : start());

  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? "Resume updates" : "Pause updates";
    say(paused ? "Paused" : "");
    decide();
    if (!paused) everything();
  });
  document.addEventListener("visibilitychange", decide);
  addEventListener("pagehide", stop);
  addEventListener("pageshow", decide);
  decide();
})();
