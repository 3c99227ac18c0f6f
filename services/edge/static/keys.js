// Keys: who may call. A secret is shown once, when it is made, and kept nowhere on this page.

import { ApiError, ask, key as ours } from "./api.js";
import { announce, button, copier, field, make, openDialog, select } from "./dom.js";
import { refusal } from "./live.js";
import { day } from "./words.js";

const DAY_S = 86_400;
const HEADS = ["Name", "Begins with", "Role", "May use", "Made", "Ends"];
const ROLES = [["user"], ["guest"], ["service"], ["admin"]];
const LIVES = [["", "never"], [30 * DAY_S, "after 30 days"], [90 * DAY_S, "after 90 days"], [365 * DAY_S, "after a year"]];
const OVERLAPS = [[0, "at once"], [3600, "in an hour"], [DAY_S, "in a day"], [7 * DAY_S, "in a week"]];

class KeysPage {
  constructor() {
    this.rows = make("tbody");
    this.more = button("More", () => this.#load(this.next), { hidden: true });
    this.table = make("section", { class: "sheet", hidden: true },
      make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Keys" }, make("table", {},
        make("thead", {}, make("tr", {}, HEADS.map((name) => make("th", { scope: "col" }, name)), make("th", { scope: "col" }, make("span", { class: "aloud" }, "Actions")))),
        this.rows)), this.more);
    this.create = button("New key", () => this.#openCreate(), { class: "main", hidden: true });
    this.element = make("div", { class: "page" },
      make("header", {}, make("div", {}, make("h1", {}, "Keys"), make("p", {}, "Who may call, and what each may use. A secret is shown once, when it is made.")), this.create),
      this.table);
    // Whoever shows no key is no administrator, whatever this server asks of others.
    if (ours.get()) this.#load();
    else this.#refuse({ status: 401 });
  }

  async #load(after) {
    try {
      const page = await ask(`/admin/keys?limit=50${after ? `&after=${encodeURIComponent(after)}` : ""}`);
      if (!after) this.rows.replaceChildren();
      this.rows.append(...page.data.map((key) => this.#row(key)));
      if (!this.rows.children.length) this.rows.append(make("tr", {}, make("td", { colspan: 7, class: "empty" }, "There is no key yet.")));
      this.next = page.next;
      this.more.hidden = !page.next;
      this.table.hidden = this.create.hidden = false;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#refuse(error);
    }
  }

  #refuse(error) {
    this.element.append(refusal(error, "Keys are for administrators."));
  }

  #row(key) {
    const ended = key.revoked_at ?? (key.expires_at && Date.parse(key.expires_at) < Date.now() ? key.expires_at : null);
    return make("tr", { class: ended && "ended" },
      make("th", { scope: "row" }, key.name, owner(key) && make("small", {}, owner(key))),
      make("td", {}, make("code", {}, `${key.prefix}…`)),
      make("td", {}, key.role, key.tier && make("small", {}, ` tier ${key.tier}`)),
      make("td", { class: "wrap" }, scopes(key)),
      make("td", {}, day(key.created_at)),
      make("td", {}, key.revoked_at ? make("span", { class: "tag bad" }, "revoked") : ended ? make("span", { class: "tag warn" }, "expired") : key.expires_at ? day(key.expires_at) : "never"),
      make("td", { class: "number" }, !ended && [
        button("Rotate", () => this.#openRotate(key), { class: "quiet small", "aria-label": `Rotate ${key.name}` }),
        button("Revoke", () => this.#openRevoke(key), { class: "quiet small", "aria-label": `Revoke ${key.name}` })]));
  }

  #openCreate() {
    const name = make("input", { required: true, maxlength: 64, autocomplete: "off" });
    const [role, life] = [select(ROLES), select(LIVES)];
    const [tenant, tier, models, profiles] = [256, 64, 512, 512].map((maxlength) => make("input", { maxlength, autocomplete: "off", spellcheck: "false" }));
    models.placeholder = profiles.placeholder = "all";
    this.#form("New key", "Make it", [
      field("Name", name), make("div", { class: "pair" }, field("Role", role), field("Ends", life)),
      field("Models", models, "Names with commas between them; one may end with *."), field("Safety profiles", profiles),
      make("div", { class: "pair" }, field("Tenant", tenant), field("Tier", tier, "Which limits hold.")),
    ], async () => {
      const body = { name: name.value.trim(), role: role.value, tenant: tenant.value.trim(), tier: tier.value.trim(), models: list(models), safety_profiles: list(profiles) };
      if (life.value) body.expires_in_s = Number(life.value);
      this.#showSecret(await ask("/admin/keys", { method: "POST", body }));
    });
  }

  #openRotate(key) {
    const overlap = select(OVERLAPS);
    this.#form(`Rotate ${key.name}`, "Rotate it", [make("p", {}, "It gets a new secret; the old one ends when you say."), field("The old secret ends", overlap)],
      async () => this.#showSecret(await ask(`/admin/keys/${encodeURIComponent(key.id)}/rotate`, { method: "POST", body: { overlap_s: Number(overlap.value) } })));
  }

  #openRevoke(key) {
    this.#form(`Revoke ${key.name}?`, "Revoke it", [make("p", {}, "Whoever uses it is refused within a second, and nothing brings it back.")], async () => {
      await ask(`/admin/keys/${encodeURIComponent(key.id)}`, { method: "DELETE" });
      announce(`${key.name} is revoked.`);
    }, "danger");
  }

  /** A dialog with a form; what its order raises is shown in it, and what it changed in the table. */
  #form(title, order, fields, run, kind = "main") {
    const said = make("p", { class: "notice bad", role: "alert", hidden: true });
    const submit = async (event) => {
      event.preventDefault();
      try {
        await run();
        dialog.close();
        await this.#load();
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        said.textContent = error.message;
        said.hidden = false;
      }
    };
    const dialog = openDialog(title, make("form", { on: { submit } }, ...fields, said,
      make("div", { class: "row" }, make("button", { type: "submit", class: kind }, order), button("Cancel", () => dialog.close()))));
  }

  #showSecret(made) {
    openDialog(`The secret of ${made.name}`,
      make("p", {}, "This is the only time it is shown."),
      make("p", { class: "secret" }, make("code", {}, made.secret)),
      make("div", { class: "row" }, copier(() => made.secret)));
  }
}

const list = (input) => input.value.split(",").map((name) => name.trim()).filter(Boolean);

const owner = (key) => [key.tenant, key.principal].filter(Boolean).join(" / ");

const scopes = (key) => {
  const parts = [key.models, key.endpoints, key.safety_profiles].filter((names) => names.length).map((names) => names.join(", "));
  return parts.length ? parts.join("; ") : "all that its role may";
};

export const open = () => new KeysPage();
