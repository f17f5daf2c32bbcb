"use strict";
/* A crosshair on the charts. It follows the pointer, and the arrow keys while a chart has the focus. */
{
    let shown = null;  // a chart's id and a time: the crosshair moves on with its time when the page refreshes

    const rowsOf = (chart) => chart.dataset.readings.split("\n").map((line) => line.split("\t"));

    /* The time and the values of a row as lines. */
    const read = (chart, [time, ...values]) => {
        const labels = [...chart.querySelectorAll(".sp-legend li")].map((item) => item.textContent);
        return [time, ...labels.map((label, at) => values[at] && `${label}: ${values[at]}`).filter(Boolean)];
    };

    const draw = (chart) => {
        const rows = rowsOf(chart);
        const at = shown?.id === chart.id ? rows.findIndex(([time]) => time === shown.time) : -1;
        const cross = chart.querySelector(".sp-cross");
        const readout = chart.querySelector(".sp-readout");
        const scrub = chart.querySelector(".sp-scrub");
        cross.hidden = readout.hidden = at < 0;
        if (at < 0) return;
        const lines = read(chart, rows[at]);
        const share = (at + 0.5) / rows.length;
        cross.style.left = readout.style.left = `${share * 100}%`;
        readout.classList.toggle("sp-flip", share > 0.5);
        readout.textContent = lines.join("\n");
        scrub.value = at;
        scrub.setAttribute("aria-valuetext", lines.join(", "));
    };

    const drawAll = () => document.querySelectorAll(".sp-chart").forEach(draw);

    /* The page may refresh at any time; this is called before it is painted. */
    const watch = new MutationObserver(() => {
        if (shown) update(shown);
    });

    const update = (what) => {
        shown = what;
        drawAll();
        watch.takeRecords();  // our own changes
    };

    const show = (chart, at) => {
        const rows = rowsOf(chart);
        update({ id: chart.id, time: rows[Math.min(Math.max(at, 0), rows.length - 1)][0] });
    };

    const byKeyboard = (event) => {
        if (event.target.matches?.(".sp-scrub")) show(event.target.closest(".sp-chart"), Number(event.target.value));
    };

    document.addEventListener("pointermove", (event) => {
        const plot = event.target.closest?.(".sp-plot");
        if (plot) {
            const chart = plot.closest(".sp-chart");
            const { left, width } = plot.getBoundingClientRect();
            show(chart, Math.floor(((event.clientX - left) / width) * rowsOf(chart).length));
        } else if (shown && !document.activeElement?.matches(".sp-scrub")) {
            update(null);
        }
    });
    document.addEventListener("input", byKeyboard);
    document.addEventListener("focusin", byKeyboard);
    document.addEventListener("focusout", (event) => {
        if (event.target.matches?.(".sp-scrub")) update(null);
    });
    document.addEventListener("keydown", (event) => {
        if (event.key === "Escape" && shown) update(null);
    });
    watch.observe(document.documentElement, { subtree: true, childList: true, attributes: true, characterData: true });
}
