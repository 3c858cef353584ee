"use strict";

// The page is complete without this: it adds the search, the mark of where one is, and copying.

const search = document.getElementById("search");
const nothing = document.getElementById("nothing");
const articles = [...document.querySelectorAll("article")];
const links = new Map([...document.querySelectorAll("nav li")].map((item) => [item.dataset.for, item]));

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let found = 0;
  for (const article of articles) {
    const fits = words.every((word) => article.dataset.text.includes(word));
    article.hidden = !fits;
    links.get(article.id)?.toggleAttribute("hidden", !fits);
    found += fits;
  }
  for (const section of document.querySelectorAll("main > section:not(.intro), nav > section")) {
    const items = section.querySelectorAll("article, li[data-for]");
    section.hidden = [...items].every((item) => item.hidden);
  }
  document.querySelector(".intro").hidden = words.length > 0;
  nothing.hidden = found > 0;
}

search.addEventListener("input", filter);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== search) {
    event.preventDefault();
    search.focus();
  }
  if (event.key === "Escape" && document.activeElement === search) {
    search.value = "";
    filter();
  }
});

const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      document.querySelector("nav a.here")?.classList.remove("here");
      const link = links.get(entry.target.id)?.querySelector("a");
      link?.classList.add("here");
      link?.scrollIntoView({ block: "nearest" });
    }
  },
  { rootMargin: "-80px 0px -75% 0px" },
);
articles.forEach((article) => seen.observe(article));

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
