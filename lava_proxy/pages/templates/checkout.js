"use strict";
(() => {
  const { state, session, origin, customer, redirect } = document.body.dataset;
  const framed = window.parent !== window;
  const progress = document.getElementById("progress");

  // To the page that the session names, and to no other.
  const tell = (type, more) => {
    if (framed) window.parent.postMessage({ type, checkoutSessionId: session, ...more }, origin);
  };

  if (state === "done") {
    tell("lava_checkout_success", { connectionId: customer, customerId: customer });
  }
  if (redirect) tell("lava_checkout_redirect", { url: redirect });

  for (const link of document.querySelectorAll("[data-cancel]")) {
    link.addEventListener("click", (event) => {
      if (!framed) return;
      event.preventDefault();
      tell("lava_checkout_cancel");
    });
  }

  const wrong = document.querySelector("[aria-invalid='true'], [role='alert']");
  if (wrong && wrong.matches("input")) wrong.focus();

  const form = document.querySelector("form");
  if (form) {
    form.addEventListener("submit", (event) => {
      if (form.dataset.sent) {
        event.preventDefault();
        return;
      }
      form.dataset.sent = "yes";
      progress.textContent = "One moment.";
    });
  }
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
  });

  // Ask less and less often; a page that nobody sees asks nothing.
  const look = async (pauseMs) => {
    if (!document.hidden) {
      try {
        const answer = await fetch(`${location.pathname}/status`, { cache: "no-store" });
        if (answer.ok && (await answer.json()).state !== state) {
          location.reload();
          return;
        }
      } catch {
        progress.textContent = "No connection. Still waiting for the payment.";
      }
    }
    setTimeout(look, pauseMs, Math.min(pauseMs * 1.2, 15000));
  };
  if (state === "paying") setTimeout(look, 1000, 1500);
})();
