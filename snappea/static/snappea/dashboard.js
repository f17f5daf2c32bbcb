"use strict";
/* Updates the dashboard in place. Unchanged elements stay, so that nothing flickers and the focus is kept. */
{
    // not .id: a form's would be its field of that name
    const idOf = (node) => (node.nodeType === Node.ELEMENT_NODE && node.getAttribute("id")) || "";

    const sameKind = (here, there) => here.nodeName === there.nodeName && idOf(here) === idOf(there);

    const copyAttributes = (here, there) => {
        for (const { name } of [...here.attributes]) {
            if (!there.hasAttribute(name)) here.removeAttribute(name);
        }
        for (const { name, value } of [...there.attributes]) {
            if (here.getAttribute(name) !== value) here.setAttribute(name, value);
        }
    };

    const renew = (here, there) => {
        if (here.nodeType !== Node.ELEMENT_NODE) {
            if (here.nodeValue !== there.nodeValue) here.nodeValue = there.nodeValue;
            return;
        }
        copyAttributes(here, there);
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

    const look = async (live) => {
        const answer = await fetch(location.href, { credentials: "same-origin", redirect: "error" });
        if (!answer.ok) throw new Error(answer.statusText);
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = page.getElementById("snappea-live");
        if (fresh) renew(live, document.adoptNode(fresh));
    };

    const start = () => {
        const main = document.querySelector("[data-refresh]");
        const live = document.getElementById("snappea-live");
        const pause = Number(main?.dataset.refresh);
        if (!live || !pause) return;
        let isBusy = false;
        setInterval(async () => {
            if (isBusy || document.hidden) return;
            isBusy = true;
            try {
                await look(live);
                document.body.classList.remove("snappea-stale");
            } catch {
                document.body.classList.add("snappea-stale");  // the next try may succeed
            }
            isBusy = false;
        }, pause);
    };

    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
    else start();
}
