"use strict";
// Sets the chosen theme before anything is painted; without a choice the system's holds.
try {
  const chosen = localStorage.getItem("millrace.theme");
  if (chosen) document.documentElement.dataset.theme = JSON.parse(chosen);
} catch {
  // A browser that keeps nothing has the system's theme.
}
