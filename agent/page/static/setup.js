// The first run: the steps of a set-up. What the page has no rights for is a command to paste.

export async function drawSetup({ $, say, told, make, button, copy, take, announce }) {
  const answer = await fetch("/setup");
  if (!answer.ok) return;
  const paste = (text) => make("div", { className: "line" }, make("pre", { textContent: text }), button("copy", () => copy(text)));
  const demo = async () => {
    const files = await Promise.all(["hello.jpg", "hello.wav"].map(async (name) => {
      const got = await fetch(`/setup/${name}`);
      if (!got.ok) throw new Error(told(await got.json(), "error"));
      return new File([await got.blob()], name, { type: got.headers.get("content-type") });
    }));
    take(files);
    $("start").focus();
  };
  $("steps").replaceChildren(...(await answer.json()).map((step) => make("li", { className: step.done ? "good" : "" },
    make("h3", { textContent: `${step.done ? "✓" : "○"} ${say(`step_${step.name}`)}` }),
    ...told(step, "told").map((text) => make("p", { textContent: text })),
    ...(step.done && step.name !== "access" ? [] : [step.commands.join("\n")].filter(Boolean).map(paste)),
    ...(step.text ? [make("p", { textContent: say("samba") }), paste(step.text.trimEnd())] : []),
    step.name === "demo" && !step.done ? button("demo", () => demo().catch((error) => announce(error.message, "bad"))) : null)));
}
