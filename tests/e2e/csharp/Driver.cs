using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Text;
using System.Threading;
using System.Threading.Tasks;
using Musedrop;

/// <summary>Does with the client what the tests ask for, in words; answers are lines of tab-separated key=value.</summary>
public static class Driver
{
    sealed class Watching : IProgress<JobProgress>
    {
        readonly Action<JobProgress> act;

        public Watching(Action<JobProgress> act)
        {
            this.act = act;
        }

        public void Report(JobProgress news)
        {
            Say("progress", "State", news.State, "Stage", news.Stage, "Percent", news.Percent, "Position", news.Position, "WaitingFor", news.WaitingFor, "DaemonRunning", news.DaemonRunning);
            act(news);
        }
    }

    /// <summary>VERB SHARE WORDS; a request is Key=Value words, several are set apart by --.</summary>
    public static int Main(string[] args)
    {
        Console.OutputEncoding = new UTF8Encoding(false);
        var verbs = new Dictionary<string, Func<string, string[], Task>>
        {
            { "generate", Generate }, { "cancel", CancelWhenRunning }, { "submit", SubmitOnly }, { "wait", WaitFor }, { "glance", Glance }, { "late", Late },
            { "takeback", TakeBack }, { "absent", Absent }, { "service", Service }, { "together", Together }, { "impatient", Impatient }, { "write", WriteAnyhow }, { "names", Names }
        };
        verbs[args[0]](args[1], args.Skip(2).ToArray()).GetAwaiter().GetResult();
        return 0;
    }

    /// <summary>As an app whose own service was replaced calls it.</summary>
    static async Task Service(string share, string[] words)
    {
        IMuseTalkService service = new MuseTalkService(share, line => Say("log", "Line", line));
        var answer = await service.GenerateVideoAsync(Requests(words).Single(), 1);
        Tell(answer);
        foreach (var note in answer.Notes) Say("note", "Text", note);
    }

    /// <summary>Submits each request from a thread of its own, all at the same moment.</summary>
    static Task Together(string share, string[] words)
    {
        var requests = Requests(words).ToList();
        using (var start = new Barrier(requests.Count))
        {
            var threads = requests.Select(request => new Thread(() =>
            {
                start.SignalAndWait();
                SubmitOne(share, request);
            })).ToList();
            foreach (var thread in threads) thread.Start();
            foreach (var thread in threads) thread.Join();
        }
        return Task.FromResult(0);
    }

    static Task Generate(string share, string[] words)
    {
        var client = new MusedropClient(share, Quick());
        return Task.WhenAll(Requests(words).Select(request => One(client, request)));
    }

    static async Task One(MusedropClient client, DigitalHumanRequest request)
    {
        Tell(await client.GenerateVideoAsync(request, new Watching(news => { })));
    }

    static async Task CancelWhenRunning(string share, string[] words)
    {
        using (var cancel = new CancellationTokenSource())
        {
            var watching = new Watching(news => { if (news.State == JobState.Running) cancel.Cancel(); });
            try
            {
                Tell(await new MusedropClient(share, Quick()).GenerateVideoAsync(Requests(words).Single(), watching, cancel.Token));
            }
            catch (OperationCanceledException)
            {
                Say("cancelled");
            }
        }
    }

    static Task SubmitOnly(string share, string[] words)
    {
        foreach (var request in Requests(words)) SubmitOne(share, request);
        return Task.FromResult(0);
    }

    static void SubmitOne(string share, DigitalHumanRequest request)
    {
        try
        {
            var ticket = new MusedropClient(share).Submit(request);
            Say("ticket", "Name", ticket.Name, "Id", ticket.Id);
        }
        catch (MusedropException problem)
        {
            Say("refused", "Code", problem.Code, "Kind", problem.Kind, "Message", problem.Message);
        }
    }

    static Task WaitFor(string share, string[] words)
    {
        Tell(new MusedropClient(share, Quick()).Wait(new JobTicket(words[0], words[1])));
        return Task.FromResult(0);
    }

    /// <summary>Wait just long enough to see what the share says.</summary>
    static Task Glance(string share, string[] words)
    {
        var options = Quick();
        options.WaitTimeout = TimeSpan.FromSeconds(0.3);
        options.UnreachableTimeout = TimeSpan.FromSeconds(0.1);
        Tell(new MusedropClient(share, options).Wait(new JobTicket(words[0], words[1]), new Watching(news => { })));
        return Task.FromResult(0);
    }

    /// <summary>Submit a job, let status.json say something then, and wait just long enough to see it.</summary>
    static Task Late(string share, string[] words)
    {
        var options = Quick();
        options.WaitTimeout = TimeSpan.FromSeconds(0.3);
        var client = new MusedropClient(share, options);
        var ticket = client.Submit(Requests(words.Skip(1).ToArray()).Single());
        File.WriteAllText(Path.Combine(share, "status.json"), words[0]);
        Tell(client.Wait(ticket));
        return Task.FromResult(0);
    }

    static Task TakeBack(string share, string[] words)
    {
        var client = new MusedropClient(share, Quick());
        var ticket = client.Submit(Requests(words).Single());
        client.Cancel(ticket);
        Tell(client.Wait(ticket));
        return Task.FromResult(0);
    }

    static async Task Absent(string share, string[] words)
    {
        var options = Quick();
        options.PickupTimeout = TimeSpan.FromSeconds(0.2);
        Tell(await new MusedropClient(share, options).GenerateVideoAsync(Requests(words).Single()));
    }

    static async Task Impatient(string share, string[] words)
    {
        var options = Quick();
        options.WaitTimeout = TimeSpan.FromSeconds(4);
        Tell(await new MusedropClient(share, options).GenerateVideoAsync(Requests(words).Single(), new Watching(news => { })));
    }

    /// <summary>As programs without this client write files: a folder, the text of a job, and what it is to be called.</summary>
    static Task WriteAnyhow(string folder, string[] words)
    {
        var text = words[0];
        File.WriteAllText(Path.Combine(folder, "plain.json"), text);
        File.WriteAllText(Path.Combine(folder, "bom.json"), text, Encoding.UTF8);
        File.WriteAllText(Path.Combine(folder, "utf16.json"), text, Encoding.Unicode);
        File.WriteAllText(Path.Combine(folder, "utf16be.json"), text, Encoding.BigEndianUnicode);
        using (var lines = new StreamWriter(Path.Combine(folder, "crlf.json"), false, new UTF8Encoding(true)) { NewLine = "\r\n" })
            foreach (var line in text.Split('\n')) lines.WriteLine(line);
        using (var closed = new FileStream(Path.Combine(folder, "exclusive.json"), FileMode.CreateNew, FileAccess.Write, FileShare.None))
            foreach (var piece in Encoding.UTF8.GetBytes(text)) closed.WriteByte(piece);
        return Task.FromResult(0);
    }

    /// <summary>The names that jobs get for these audio files, without handing anything in.</summary>
    static Task Names(string share, string[] words)
    {
        foreach (var word in words)
        {
            var client = new MusedropClient(share);
            var ticket = client.Submit(new DigitalHumanRequest { TemplateId = "anna", AudioPath = Path.Combine(share, "voice.wav"), Name = word });
            Say("name", "Name", ticket.Name);
            client.Cancel(ticket);
        }
        return Task.FromResult(0);
    }

    static MusedropOptions Quick()
    {
        return new MusedropOptions { PollInterval = TimeSpan.FromSeconds(0.1) };
    }

    static IEnumerable<DigitalHumanRequest> Requests(string[] words)
    {
        var rest = words.AsEnumerable();
        for (; rest.Any(); rest = rest.SkipWhile(word => word != "--").Skip(1))
            yield return Request(rest.TakeWhile(word => word != "--"));
    }

    static DigitalHumanRequest Request(IEnumerable<string> words)
    {
        var made = new DigitalHumanRequest();
        foreach (var word in words)
        {
            var pair = word.Split(new[] { '=' }, 2);
            if (pair[0] == "FaceBox")
            {
                made.FaceBox = pair[1].Split(',').Select(side => double.Parse(side, System.Globalization.CultureInfo.InvariantCulture)).ToList();
                continue;
            }
            if (pair[0] == "Options")
            {
                made.Options = new Dictionary<string, object> { { "label", false }, { "strength", 0.5 }, { "cycle", pair[1] }, { "cheek_width", new[] { 10, 20 } } };
                continue;
            }
            if (pair[0] == "Motion")
            {
                made.Motion = Motion(pair[1]);
                continue;
            }
            if (pair[0] == "Voices")
            {
                made.Voices = pair[1].Split('|').Select(Voice).ToList();
                continue;
            }
            var property = typeof(DigitalHumanRequest).GetProperty(pair[0]);
            var type = Nullable.GetUnderlyingType(property.PropertyType) ?? property.PropertyType;
            var value = type.IsEnum ? Enum.Parse(type, pair[1]) : Convert.ChangeType(pair[1], type, System.Globalization.CultureInfo.InvariantCulture);
            property.SetValue(made, value);
        }
        return made;
    }

    /// <summary>A motion with everything set, or with nothing where there is no prompt.</summary>
    static DigitalHumanMotion Motion(string prompt)
    {
        if (prompt.Length == 0) return new DigitalHumanMotion();
        var options = new Dictionary<string, object> { { "motion_speed", 6.5 }, { "window", 8 }, { "crop", "reference" } };
        return new DigitalHumanMotion
        {
            Engine = "MuseV", Prompt = prompt, NegativePrompt = "", Seconds = 2.5, Seed = 4294967295, Size = 384, Variant = "musev",
            Base = "mine", Guidance = 1.5, Steps = 4, Interpolation = "blend", KeepClip = true, Options = options
        };
    }

    /// <summary>A voice of FACE,PATH or FACE,PATH,SECONDS.</summary>
    static DigitalHumanVoice Voice(string text)
    {
        var parts = text.Split(',');
        var from = parts.Length < 3 ? (double?)null : double.Parse(parts[2], System.Globalization.CultureInfo.InvariantCulture);
        return new DigitalHumanVoice { Face = int.Parse(parts[0]), AudioPath = parts[1], FromSeconds = from };
    }

    static void Tell(DigitalHumanResponse answer)
    {
        object engine;
        answer.Metadata.TryGetValue("engine", out engine);
        Say("answer", "Success", answer.Success, "VideoPath", answer.VideoPath, "Error", answer.Error, "Kind", answer.ErrorKind, "Message", answer.Message,
            "Hint", answer.Hint, "Seconds", answer.ProcessingTime.TotalSeconds, "Duration", answer.Duration.TotalSeconds, "FromCache", answer.FromCache,
            "CompletedAt", answer.CompletedAt == null ? "" : answer.CompletedAt.Value.ToString("o"), "Engine", engine);
    }

    static void Say(string what, params object[] pairs)
    {
        var line = new StringBuilder(what);
        for (var at = 0; at < pairs.Length; at += 2)
            line.AppendFormat(System.Globalization.CultureInfo.InvariantCulture, "\t{0}={1}", pairs[at], pairs[at + 1]);
        lock (Console.Out) Console.WriteLine(line);
    }
}
