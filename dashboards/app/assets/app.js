// The address holds every choice: controls and clicks change it, the server renders it.
(function () {
  "use strict";

  function remember(theme) {
    document.cookie = "longrange-theme=" + theme + "; path=/; max-age=31536000; samesite=lax";
    document.documentElement.dataset.theme = theme;
  }
  if (!/(?:^|; )longrange-theme=/.test(document.cookie)) {
    remember(window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  }

  function changed(choices) {
    const query = new URLSearchParams(window.location.search);
    for (const [name, values] of Object.entries(choices)) {
      query.delete(name);
      values.forEach((value) => query.append(name, value));
    }
    return query;
  }
  // Two spellings of one query (%20 and +) are the same address.
  function same(query) {
    return query.toString() === new URLSearchParams(window.location.search).toString();
  }
  function spelled(query) {
    const text = query.toString();
    return text ? "?" + text : "";
  }

  const ARMS_IN = ["frontier", "ablation", "parallel"]; // charts whose points are arms
  function address(values, clicks) {
    const stay = window.dash_clientside.no_update;
    const context = window.dash_clientside.callback_context;
    const cause = (context.triggered[0] || {}).prop_id || "";
    if (cause.endsWith(".clickData")) {
      const click = context.triggered[0].value;
      const point = click && click.points && click.points[0];
      const arm = point && (Array.isArray(point.customdata) ? point.customdata[0] : point.customdata);
      if (typeof arm !== "string" || !ARMS_IN.some((name) => cause.includes(`"${name}"`))) return stay;
      const query = changed({ arm: [arm] });
      return same(query) ? stay : spelled(query);
    }
    const choices = {};
    (context.inputs_list[0] || []).forEach((control) => {
      const given = control.value;
      const list = Array.isArray(given) ? given : given === null || given === undefined || given === "" ? [] : [given];
      choices[control.id.control] = list.map(String).filter((value) => value !== control.id.default);
    });
    let query = changed(choices);
    if (same(query)) return stay;
    query.delete("page");
    return spelled(query);
  }

  // After "back" the controls show what the address says; no server is asked, so nothing is mounted anew.
  function controls() {
    const query = new URLSearchParams(window.location.search);
    const context = window.dash_clientside.callback_context;
    (context.states_list[0] || []).forEach(function (control) {
      const named = query.getAll(control.id.control);
      const many = Array.isArray(control.value);
      const wanted = many ? named : named[0] || control.id.default || null;
      if (String(wanted || "") !== String(control.value || "")) window.dash_clientside.set_props(control.id, { value: wanted });
    });
    return window.dash_clientside.no_update;
  }

  function title(text) {
    if (text) document.title = text;
    return text;
  }

  window.dash_clientside = Object.assign({}, window.dash_clientside, { longrange: { address: address, controls: controls, title: title } });

  // Markup that nothing reacts to comes as [tag, attributes, ...children] (plain.py); texts stay texts.
  function element(node) {
    return Array.isArray(node) ? window.React.createElement(node[0], node[1], ...node.slice(2).map(element)) : node;
  }
  window.longrange = { Plain: (properties) => element(properties.tree) };

  // The chosen arm's card appears above the table: follow it there, also from the table's end.
  function reveal() {
    const page = document.getElementById("page");
    const watch = new MutationObserver(function () {
      const card = page.querySelector(".card.chosen");
      if (!card) return;
      watch.disconnect();
      card.scrollIntoView({ block: "nearest" });
    });
    watch.observe(page, { childList: true, subtree: true, characterData: true, attributes: true });
    window.setTimeout(() => watch.disconnect(), 5000);
  }

  // What had the focus may be mounted anew: give it back to its successor, so that a refresh does not throw anybody out.
  let last = "";
  function name(node) {
    if (node.dataset && node.dataset.choose) return "[data-choose='" + CSS.escape(node.dataset.choose) + "']";
    const href = node.getAttribute && node.getAttribute("href");
    return href ? "a[href='" + CSS.escape(href) + "']" : "";
  }
  document.addEventListener("focusin", (event) => { last = name(event.target); });
  document.addEventListener("pointerdown", () => { last = ""; });
  new MutationObserver(function () {
    if (!last || document.activeElement !== document.body) return;
    const heir = document.querySelector("#page " + last);
    if (heir) heir.focus({ preventScroll: true });
  }).observe(document.documentElement, { childList: true, subtree: true });

  // Links within the app change the address without loading the page; with a modifier they open as the browser says.
  document.addEventListener("click", function (event) {
    const link = event.target.closest("a[data-inside]");
    if (!link || event.button || event.metaKey || event.shiftKey || event.altKey || event.ctrlKey) return;
    event.preventDefault();
    if (link.pathname !== window.location.pathname) window.scrollTo(0, 0);
    window.dash_clientside.set_props("url", { pathname: link.pathname, search: link.search });
  });

  document.addEventListener("click", function (event) {
    const button = event.target.closest("#theme-button, [data-choose]");
    if (!button) return;
    if (button.id === "theme-button") {
      const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
      remember(theme);
      window.dash_clientside.set_props("theme", { data: theme });
      return;
    }
    const arm = button.dataset.choose;
    if (arm) reveal();
    window.dash_clientside.set_props("url", { search: spelled(changed({ arm: arm ? [arm] : [] })) });
  });
})();
