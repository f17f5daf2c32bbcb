"use strict";
/* Refreshes a page of the console in place. Unchanged elements stay, so that nothing flickers and the focus is kept. */
{
    // not .id: a form's would be its field of that name
    const idOf = (node) => (node.nodeType === Node.ELEMENT_NODE && node.getAttribute("id")) || "";

    const sameKind = (here, there) => here.nodeName === there.nodeName && idOf(here) === idOf(there);

    /* What the user opened stays open. */
    const isOfUser = (node, name) => node.nodeName === "DETAILS" && name === "open";

    const copyAttributes = (here, there) => {
        for (const { name } of [...here.attributes]) {
            if (!there.hasAttribute(name) && !isOfUser(here, name)) here.removeAttribute(name);
        }
        for (const { name, value } of [...there.attributes]) {
            if (here.getAttribute(name) !== value && !isOfUser(here, name)) here.setAttribute(name, value);
        }
    };

    const renew = (here, there) => {
        if (here.nodeType !== Node.ELEMENT_NODE) {
            if (here.nodeValue !== there.nodeValue) here.nodeValue = there.nodeValue;
            return;
        }
        copyAttributes(here, there);
        const kept = new Set([...there.children].map(idOf));
        for (const child of [...here.children]) {
            if (idOf(child) && !kept.has(idOf(child))) child.remove();  // first, so that the others need not move
        }
        const named = new Map([...here.children].filter(idOf).map((child) => [idOf(child), child]));
        let place = here.firstChild;
        for (const wanted of [...there.childNodes]) {
            const known = named.get(idOf(wanted));
            if (known && known !== place) here.insertBefore(known, place);
            const found = known || place;
            if (found && sameKind(found, wanted)) {
                renew(found, wanted);
                place = found.nextSibling;
            } else {
                here.insertBefore(wanted, place);
            }
        }
        while (place) {
            const next = place.nextSibling;
            place.remove();
            place = next;
        }
    };

    const health = () => document.getElementById("sp-health");

    /* Put the fragment in place, keep the focus, and tell screen readers if the state has changed. */
    const show = (html) => {
        const focus = document.activeElement;
        const state = health()?.dataset.state;
        const page = new DOMParser().parseFromString(html, "text/html");
        for (const fresh of [...page.body.children]) {
            const here = document.getElementById(idOf(fresh));
            if (here) renew(here, document.adoptNode(fresh));
        }
        if (focus?.isConnected && focus !== document.activeElement) focus.focus({ preventScroll: true });
        if (health()?.dataset.state !== state) {
            document.getElementById("sp-announce").textContent = health()?.textContent.trim().replace(/\s+/g, " ");
        }
    };

    let etag = "";
    let since = new Date();

    const look = async () => {
        const headers = { "X-Snappea-Live": "1", ...(etag && { "If-None-Match": etag }) };
        const answer = await fetch(location.href, { headers, cache: "no-store", redirect: "manual" });
        if (answer.type === "opaqueredirect" || answer.status === 403) return "ended";
        if (answer.status !== 304 && !answer.ok) return "stale";
        if (answer.status !== 304) {
            const html = await answer.text();
            if (!html.includes('id="sp-live"')) return "ended";
            etag = answer.headers.get("ETag") || "";
            show(html);
        }
        since = new Date();
        return "";
    };

    /* Say that the page is old, and since when. */
    const mark = (why) => {
        const note = document.getElementById("sp-stale");
        document.body.classList.toggle("sp-is-stale", Boolean(why));
        note.hidden = !why;
        const text = why && `${note.dataset[why]} ${since.toLocaleTimeString(document.documentElement.lang || undefined)}.`;
        if (note.textContent !== text) note.textContent = text;
    };

    const refresh = (pause) => {
        let isBusy = false;
        const tick = async () => {
            if (isBusy || document.hidden) return;
            isBusy = true;
            mark(await look().catch(() => "stale"));
            isBusy = false;
        };
        setInterval(tick, pause);
        document.addEventListener("visibilitychange", tick);
    };

    const start = () => {
        const pause = Number(document.querySelector("[data-refresh]")?.dataset.refresh);
        if (pause && document.getElementById("sp-live")) refresh(pause);
        document.addEventListener("keydown", (event) => {
            const isTyping = event.target.closest("input, textarea, select");
            if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
            event.preventDefault();
            document.getElementById("sp-q")?.focus();
        });
        document.addEventListener("change", ({ target }) => {
            if (target.id !== "sp-all-shown") return;
            for (const box of document.querySelectorAll('input[name="ids"]')) box.checked = target.checked;
        });
    };

    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
    else start();
}
