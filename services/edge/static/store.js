// What this browser keeps: settings and conversations for good, the key for the tab. A browser that keeps nothing, or
// has no room left, loses that and nothing else.

const keeper = (storage) => ({
  get(name, otherwise) {
    try {
      return JSON.parse(storage().getItem(`millrace.${name}`)) ?? otherwise;
    } catch {
      return otherwise;
    }
  },
  /** Keeps a value, `undefined` forgets it; returns whether there was room. */
  set(name, value) {
    try {
      if (value === undefined) storage().removeItem(`millrace.${name}`);
      else storage().setItem(`millrace.${name}`, JSON.stringify(value));
      return true;
    } catch {
      return false;
    }
  },
});

// Behind functions: in some browsers already naming them throws.
export const kept = keeper(() => localStorage);
export const tab = keeper(() => sessionStorage);
