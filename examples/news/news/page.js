// Draws what GET /news answers. Publishers' texts only ever become text, never markup.

const AGAIN_MS = 3000; // while the first summary is being written
const byId = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.filter(Boolean));
  return node;
}

function ago(seconds) {
  const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  if (seconds < 90) return "just now";
  if (seconds < 5400) return words.format(-Math.round(seconds / 60), "minute");
  if (seconds < 129600) return words.format(-Math.round(seconds / 3600), "hour");
  return words.format(-Math.round(seconds / 86400), "day");
}

function card(story, index) {
  const link = make("a", { href: story.url, textContent: story.title, rel: "noopener noreferrer" });
  const words = make("div", { className: "words" }, make("h3", {}, link));
  if (story.teaser) words.append(make("p", { textContent: story.teaser }));
  if (story.published) {
    const age = (Date.now() - new Date(story.published)) / 1000;
    words.append(make("time", { dateTime: story.published, textContent: ago(Math.max(0, age)) }));
  }
  const node = make("article", { className: index === 0 && story.picture ? "lead" : "" });
  if (story.picture) {
    // A publisher that describes no picture leaves it to its headline: an empty text says so to screen readers.
    const picture = make("img", { alt: story.picture.description, loading: index ? "lazy" : "eager", decoding: "async" });
    picture.addEventListener("error", () => { picture.remove(); node.classList.remove("lead"); });
    picture.src = story.picture.url;
    node.append(picture);
  }
  node.append(words);
  return node;
}

function drawBriefing(news) {
  const { summary, problem } = news;
  const parts = [];
  if (summary && summary.is_trustworthy) {
    parts.push(make("p", { className: "text", textContent: summary.text + (summary.is_cut ? " …" : "") }));
  } else if (summary) {
    parts.push(
      make("p", { className: "notice", textContent: `${summary.model} is the small model that comes with Millrace. It `
        + "knows about Millrace alone and cannot sum up news; name a real model in NEWS_MODEL. It says:" }),
      make("p", { className: "quoted", textContent: `“${summary.text}”` }),
    );
  }
  if (problem) {
    const what = summary ? "This is an older page; it could not be renewed: " : "There is no summary now: ";
    parts.push(make("p", { className: "notice", textContent: what + problem }));
  }
  if (parts.length) byId("briefing").replaceChildren(...parts);
  byId("byline").textContent = summary
    ? `Written by ${summary.model} ${ago((Date.now() - new Date(news.made)) / 1000)}; `
      + (summary.from_cache ? "kept by Millrace's cache." : "shown from this service's memory.")
    : "";
}

function draw(news) {
  byId("publisher").textContent = news.publisher.name;
  if (news.publisher.url) byId("publisher").href = news.publisher.url;
  byId("stories").replaceChildren(...news.stories.map(card));
  drawBriefing(news);
  byId("main").setAttribute("aria-busy", String(!news.summary && !news.problem));
}

async function load() {
  const response = await fetch("news");
  const news = await response.json();
  if (!response.ok) throw new Error(news.error.message);
  draw(news);
  if (!news.summary && !news.problem) setTimeout(start, AGAIN_MS);
}

async function start() {
  try {
    await load();
  } catch (error) {
    byId("briefing").replaceChildren(
      make("p", { className: "notice", textContent: `There are no news now: ${error.message} This page tries again.` }),
    );
    byId("main").setAttribute("aria-busy", "false");
    setTimeout(start, AGAIN_MS * 5);
  }
}

const today = new Date();
byId("today").textContent = today.toLocaleDateString("en", { weekday: "long", year: "numeric", month: "long", day: "numeric" });
byId("today").dateTime = today.toISOString().slice(0, 10);
start();
