"use strict";
// Keys, lease, marks and native pixels. Every page works without it: it presses the buttons that are there.
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const loaded = performance.now();
  const store = { // browsers may forbid it; the page works without
    get: (name) => { try { return localStorage.getItem(name); } catch { return null; } },
    set: (name, value) => { try { localStorage.setItem(name, value); } catch { /* not remembered then */ } },
  };
  const READY_MS = 600; // a key pressed twice must not decide the next case unseen

  // ---- theme, help, and whether keys are on
  const theme = $("#theme");
  const themes = ["auto", "light", "dark"];
  const nameTheme = () => { theme.textContent = `Theme: ${document.documentElement.dataset.theme ?? "auto"}`; };
  theme.hidden = false;
  nameTheme();
  theme.addEventListener("click", () => {
    const now = document.documentElement.dataset.theme ?? "auto";
    const next = themes[(themes.indexOf(now) + 1) % themes.length];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    store.set("theme", next);
    nameTheme();
  });
  const help = $("#help");
  $("#help-open").hidden = false;
  $("#help-open").addEventListener("click", () => help.showModal());
  const keysOn = $("#keys-on");
  keysOn.checked = store.get("keys") !== "off";
  keysOn.addEventListener("change", () => store.set("keys", keysOn.checked ? "on" : "off"));
  for (const [id, name] of [["grey", "grey"], ["go-on", "go-on"]]) {
    const box = document.getElementById(id);
    if (!box) continue;
    const kept = store.get(name);
    if (kept) box.checked = kept === "on";
    box.addEventListener("change", () => store.set(name, box.checked ? "on" : "off"));
  }

  // ---- a form is sent once
  for (const form of $$("form[method=post]")) {
    form.addEventListener("submit", (event) => {
      if (form.dataset.sent) event.preventDefault();
      form.dataset.sent = "1";
    });
  }
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

  // ---- lists: j, k, and the claim of the chosen line
  const rows = $$("a.go");
  const step = (items, by) => {
    const at = items.indexOf(document.activeElement);
    const next = items[at < 0 ? (by > 0 ? 0 : items.length - 1) : Math.min(items.length - 1, Math.max(0, at + by))];
    next?.focus();
    next?.scrollIntoView({ block: "nearest" });
  };
  const claim = () => {
    const form = $("#claim") ?? $(".verdicts form[action='/claim']");
    if (!form) return;
    const chosen = document.activeElement?.dataset?.case;
    if (chosen && document.body.classList.contains("lists")) $("[name=case_id]", form).value = chosen;
    form.requestSubmit();
  };

  // ---- marks on image and panel
  const marks = $$("button.mark");
  const lookAt = (figure) => { // inside the pictures' own column alone: the text shall stay where it is
    const sight = $(".sight");
    if (sight.scrollHeight > sight.clientHeight) sight.scrollTo({ top: figure.offsetTop });
  };
  const choose = (button) => {
    const was = button.getAttribute("aria-pressed") === "true";
    for (const other of marks) other.setAttribute("aria-pressed", String(other === button && !was));
    const on = was ? [] : [button.dataset.mark, button.dataset.also];
    for (const drawn of $$(".over [data-mark]")) {
      drawn.classList.toggle("on", on.includes(drawn.dataset.mark));
      if (drawn.dataset.mark === on[0]) lookAt(drawn.closest("figure"));
    }
  };
  for (const button of marks) button.addEventListener("click", () => choose(button));
  for (const named of $$("pre mark")) {
    named.addEventListener("click", () => $(`button.mark[data-mark="${named.dataset.mark}"]`)?.click());
  }
  const stepMarks = (by) => {
    const at = marks.findIndex((button) => button.getAttribute("aria-pressed") === "true");
    const next = marks[Math.min(marks.length - 1, Math.max(0, at + by))];
    if (!next || next === marks[at]) return;
    choose(next);
    next.focus();
    next.scrollIntoView({ block: "nearest" });
  };

  // ---- pictures that cannot be had say why
  for (const image of $$(".frame img[src]")) {
    const absent = async () => {
      const answer = await fetch(image.src, { credentials: "same-origin" });
      const said = document.createElement("p");
      said.className = "soft";
      said.textContent = answer.status === 404 ? await answer.text() : "The picture cannot be loaded now.";
      image.closest(".frame").replaceChildren(said);
    };
    image.addEventListener("error", absent);
    if (image.complete && image.naturalWidth === 0) absent();
  }

  // ---- native pixels
  const box = $("#pixels");
  const view = { left: 0, top: 0, zoom: 2 };
  const clamp = (value, most) => Math.round(Math.max(0, Math.min(value, Math.max(0, most))));
  const draw = () => {
    const [width, height, size] = ["width", "height", "window"].map((name) => Number(box.dataset[name]));
    view.left = clamp(view.left, width - size);
    view.top = clamp(view.top, height - size);
    const image = $("img", box);
    const source = `${box.dataset.src}?left=${view.left}&top=${view.top}`;
    if (image.getAttribute("src") !== source) image.src = source;
    image.style.width = `${Math.min(width, size) * view.zoom / devicePixelRatio}px`;
    image.hidden = false;
    $("#zoom-at").textContent = `${view.zoom}x, from ${view.left}, ${view.top} px`;
  };
  const move = (x, y) => { view.left += x * 128; view.top += y * 128; draw(); };
  const zoom = (by) => { view.zoom = Math.max(1, Math.min(16, by > 0 ? view.zoom * 2 : view.zoom / 2)); draw(); };
  if (box) {
    $("#zoom").addEventListener("toggle", () => { if ($("#zoom").open) draw(); });
    for (const button of $$("[data-move]")) button.addEventListener("click", () => move(...button.dataset.move.split(" ").map(Number)));
    for (const button of $$("[data-zoom]")) button.addEventListener("click", () => zoom(Number(button.dataset.zoom)));
    box.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (by) { event.preventDefault(); move(...by); }
    });
    $("#image img")?.addEventListener("click", (event) => {
      if (!$("#show").checked) return;
      const area = event.target.getBoundingClientRect();
      view.left = (event.clientX - area.left) / area.width * Number(box.dataset.width) - Number(box.dataset.window) / 2;
      view.top = (event.clientY - area.top) / area.height * Number(box.dataset.height) - Number(box.dataset.window) / 2;
      $("#zoom").open = true;
      draw();
    });
  }

  // ---- the lease: renewed while somebody works on the page, and never by itself
  const article = $("#case[data-left]");
  if (article) {
    const length = Number(article.dataset.left) * 1000;
    let until = performance.now() + length;
    let active = true;
    for (const kind of ["keydown", "pointerdown", "pointermove", "wheel", "touchstart"]) {
      addEventListener(kind, () => { active = true; }, { passive: true });
    }
    const over = () => {
      $("#lease-over").hidden = false;
      for (const button of $$(".verdicts button")) button.disabled = true;
      $("#lease-over").scrollIntoView({ block: "nearest" });
      clearInterval(timer);
    };
    const renew = async () => {
      active = false;
      const asked = performance.now();
      const form = $("#renew");
      const answer = await fetch(form.action, {
        method: "POST", body: new URLSearchParams(new FormData(form)), headers: { accept: "application/json" },
      });
      if (answer.ok) until = asked + (await answer.json()).left_s * 1000;
      else if (answer.status < 500) over();
    };
    const tick = () => {
      const left = until - performance.now();
      if (left <= 0) { over(); return; }
      const minutes = Math.floor(left / 60000);
      $("#lease").textContent = ` for ${minutes ? `${minutes} min` : `${Math.ceil(left / 1000)} s`}`;
      if (active && document.visibilityState === "visible" && left < length * 2 / 3) renew().catch(() => { active = true; });
    };
    const timer = setInterval(tick, 1000);
    tick();
  }

  // ---- keys
  const press = (selector) => $(selector)?.click();
  const verdict = (at) => {
    const button = $$("#verdict button.answer")[at];
    if (button && !button.disabled && performance.now() - loaded > READY_MS) button.form.requestSubmit(button);
  };
  const keys = {
    j: () => (rows.length && document.body.classList.contains("lists") ? step(rows, 1) : stepMarks(1)),
    k: () => (rows.length && document.body.classList.contains("lists") ? step(rows, -1) : stepMarks(-1)),
    c: claim,
    b: () => press("#show"),
    g: () => press("#grey"),
    m: () => press("#marks"),
    n: () => $("#note")?.focus(),
    f: () => $("#family")?.focus(),
    x: () => $("#release button:not(:disabled)") && $("#release").requestSubmit(),
    s: () => { const skip = $("#skip"); if (skip) { skip.open = true; $("[name=reason]", skip).focus(); } },
    z: () => { if (box) { $("#zoom").open = !$("#zoom").open; if ($("#zoom").open) box.focus(); } },
    "+": () => box && $("#zoom").open && zoom(1),
    "-": () => box && $("#zoom").open && zoom(-1),
    "/": () => { const field = $("#q"); if (field) field.focus(); else location.assign("/search"); },
    q: () => location.assign("/queue"),
    "?": () => help.showModal(),
    1: () => verdict(0), 2: () => verdict(1), 3: () => verdict(2), 4: () => verdict(3),
  };
  addEventListener("keydown", (event) => {
    const typing = event.target.matches?.("input:not([type=checkbox]), textarea, select");
    if (event.key === "Escape" && typing) { event.target.blur(); return; }
    if (typing && ["note", "family"].includes(event.target.id) && event.key === "Enter") { event.preventDefault(); event.target.blur(); return; }
    if (typing || help.open || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!keysOn.checked && event.key !== "?") return;
    const act = Object.hasOwn(keys, event.key) ? keys[event.key] : undefined;
    if (act) { event.preventDefault(); act(); }
  });
})();
