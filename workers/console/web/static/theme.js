"use strict";
// Before the page is drawn, so that it does not flash in the other colours. Browsers may forbid the storage.
try {
  const theme = localStorage.getItem("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch { /* the system's colours then */ }
