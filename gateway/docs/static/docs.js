"use strict";

// The page is complete without this: it adds the search, the mark of where one is, and copying.

const search = document.getElementById("search");
const nothing = document.getElementById("nothing");
const nav = document.querySelector("nav");
const articles = [...document.querySelectorAll("article")];
const links = new Map([...document.querySelectorAll("nav li")].map((item) => [item.dataset.for, item]));
// What is put in order, as it stands without a search: lists of articles or links, then the sections that hold them.
const lists = [
  ...[...document.querySelectorAll("main > section:not(.intro)")].map((list) => [list, [...list.querySelectorAll("article")]]),
  ...[...nav.querySelectorAll("ol")].map((list) => [list, [...list.children]]),
  [document.querySelector("main"), [...document.querySelectorAll("main > section:not(.intro)")]],
  [nav, [...nav.children]],
];
const NOT_FOUND = 3;

// 0: the name has all the words; 1: name, title, path or scope have; 2: only with its refusals; 3: not at all.
function rankOf(article, words) {
  const { name, title, text } = article.dataset;
  const told = [name, `${name} ${title}`, text];
  const rank = told.findIndex((part) => words.every((word) => part.includes(word)));
  return rank < 0 ? NOT_FOUND : rank;
}

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const ranks = new Map();
  for (const article of articles) {
    const rank = rankOf(article, words);
    const item = links.get(article.id);
    ranks.set(article, rank).set(item, rank);
    article.hidden = rank === NOT_FOUND;
    item?.toggleAttribute("hidden", article.hidden);
  }
  for (const section of document.querySelectorAll("main > section:not(.intro), nav > section")) {
    const within = [...section.querySelectorAll("article, li[data-for]")].map((each) => ranks.get(each));
    const best = Math.min(...within, NOT_FOUND);
    ranks.set(section, best);
    section.hidden = best === NOT_FOUND;
  }
  // sorting is stable: among equals, and without a search, all stands as it was written
  for (const [list, items] of lists) {
    list.append(...[...items].sort((one, other) => ranks.get(one) - ranks.get(other)));
  }
  document.querySelector(".intro").hidden = words.length > 0;
  nothing.hidden = articles.some((article) => !article.hidden);
}

function clear() {
  search.value = "";
  filter();
}

search.addEventListener("input", () => {
  filter();
  window.scrollTo({ top: 0, behavior: "instant" });
  nav.scrollTop = 0;
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== search) {
    event.preventDefault();
    search.focus();
  }
  if (event.key === "Escape" && document.activeElement === search) {
    clear();
  }
});

// A link may lead to what the search hides: show it first, then the browser can go there.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.('a[href^="#"]');
  const target = link && document.getElementById(link.hash.slice(1));
  if (target?.hidden || target?.closest("[hidden]")) clear();
});
window.addEventListener("hashchange", () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target?.hidden || target?.closest("[hidden]")) {
    clear();
    target.scrollIntoView();
  }
});

// By scrollTop: scrollIntoView would break off the page's own smooth scrolling to what was clicked.
function show(link) {
  const below = link.offsetTop + link.offsetHeight - nav.clientHeight;
  if (link.offsetTop < nav.scrollTop) nav.scrollTop = link.offsetTop;
  else if (below > nav.scrollTop) nav.scrollTop = below;
}

const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      document.querySelector("nav a.here")?.classList.remove("here");
      const link = links.get(entry.target.id)?.querySelector("a");
      link?.classList.add("here");
      if (link) show(link);
    }
  },
  { rootMargin: "-80px 0px -75% 0px" },
);
articles.forEach((article) => seen.observe(article));

document.getElementById("here").textContent = location.origin;

for (const block of document.querySelectorAll("pre")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(block.querySelector("code").textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  block.append(button);
}
