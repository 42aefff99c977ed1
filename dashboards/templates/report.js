"use strict";
(() => {
  const root = document.documentElement;
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const templates = { light: read("template-light").layout.template, dark: read("template-dark").layout.template };
  const boxes = [...document.querySelectorAll("[data-figure]")];
  const drawn = new Set();

  const theme = () => root.dataset.theme;
  const narrow = () => window.innerWidth < 700;

  function draw(box) {
    const figure = read(`figure-${box.dataset.figure}`);
    const layout = { ...figure.layout, template: templates[theme()], autosize: true };
    if (narrow() && box.dataset.figure === "frontier") layout.annotations = []; // names would cover the points
    const config = { responsive: true, displaylogo: false, plotlyServerURL: "",
      modeBarButtonsToRemove: ["sendChartToCloud", "select2d", "lasso2d"], // nothing may leave this machine
      toImageButtonOptions: { format: "svg", filename: `${document.title} ${box.dataset.figure}` } };
    Plotly.react(box, figure.data, layout, config);
    drawn.add(box);
    box.dataset.drawn = "yes";
  }

  function setTheme(name) {
    root.dataset.theme = name;
    document.getElementById("theme").textContent = name === "dark" ? "Light" : "Dark";
    drawn.forEach(draw);
  }

  function failed(reason) {
    boxes.forEach((box) => { box.textContent = `This chart cannot be drawn here (${reason}). The table above holds its numbers.`; });
  }

  async function loadPlotly() {
    const packed = document.getElementById("plotly").textContent.trim();
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }

  setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.getElementById("theme").addEventListener("click", () => setTheme(theme() === "dark" ? "light" : "dark"));

  document.querySelectorAll("[data-range]").forEach((button) => button.addEventListener("click", () => {
    const range = button.dataset.range ? JSON.parse(button.dataset.range) : null;
    const box = document.querySelector(`[data-figure="${button.dataset.target}"]`);
    const whole = read(`figure-${button.dataset.target}`).layout;
    const all = { "xaxis.range": whole.xaxis.range, "yaxis.range": whole.yaxis.range };
    Plotly.relayout(box, range || all);
    button.parentElement.querySelectorAll("button").forEach((each) => each.setAttribute("aria-pressed", each === button));
  }));

  if (typeof DecompressionStream === "undefined") { failed("this browser is too old: it lacks DecompressionStream"); return; }
  loadPlotly().then(() => {
    const observer = new IntersectionObserver((entries) => entries.forEach((entry) => {
      if (entry.isIntersecting && !drawn.has(entry.target)) draw(entry.target);
    }), { rootMargin: "600px" });
    boxes.forEach((box) => observer.observe(box));
    let shown = theme();
    window.addEventListener("beforeprint", () => { // paper is white and narrow, whatever the screen is
      shown = theme();
      root.dataset.printing = "";
      boxes.forEach((box) => drawn.add(box));
      setTheme("light");
    });
    window.addEventListener("afterprint", () => {
      delete root.dataset.printing;
      setTheme(shown);
    });
  }).catch((error) => failed(error.message));
})();
