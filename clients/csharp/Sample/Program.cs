using System;
using System.Threading;
using System.Threading.Tasks;
using Musedrop;

/// <summary>Renders one video: MusedropSample SHARE FACE VOICE [low|medium|high|ultra]. Ctrl-C cancels the job.</summary>
public static class Program
{
    sealed class Lines : IProgress<JobProgress>
    {
        public void Report(JobProgress news)
        {
            Console.WriteLine(news);
        }
    }

    /// <summary>Returns 0: done; 1: failed; 2: wrong arguments; 130: cancelled.</summary>
    public static int Main(string[] args)
    {
        VideoQuality quality;
        if (args.Length < 3 || args.Length > 4 || !Enum.TryParse(args.Length == 4 ? args[3] : "High", true, out quality))
        {
            Console.Error.WriteLine("usage: MusedropSample SHARE FACE VOICE [low|medium|high|ultra]");
            return 2;
        }
        var request = new DigitalHumanRequest { AvatarImagePath = args[1], AudioPath = args[2], Quality = quality };
        return Run(new MusedropClient(args[0]), request).GetAwaiter().GetResult();
    }

    static async Task<int> Run(MusedropClient client, DigitalHumanRequest request)
    {
        using (var cancel = new CancellationTokenSource())
        {
            Console.CancelKeyPress += (sender, key) =>
            {
                key.Cancel = true;
                cancel.Cancel();
            };
            try
            {
                return Show(await client.GenerateVideoAsync(request, new Lines(), cancel.Token));
            }
            catch (OperationCanceledException)
            {
                Console.WriteLine("cancelled");
                return 130;
            }
        }
    }

    static int Show(DigitalHumanResponse answer)
    {
        if (answer.Success)
        {
            Console.WriteLine("{0}  {1:0.0} s of video in {2:0.0} s", answer.VideoPath, answer.Duration.TotalSeconds, answer.ProcessingTime.TotalSeconds);
            return 0;
        }
        Console.Error.WriteLine("{0}: {1}\n{2}", answer.Error, answer.Message, answer.Hint);
        return 1;
    }
}
