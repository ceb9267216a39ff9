using System;
using System.Threading;
using System.Threading.Tasks;
using Musedrop;

/// <summary>What the rest of an app uses to make videos.</summary>
public interface IMuseTalkService
{
    /// <summary>Makes a video on any GPU.</summary>
    Task<DigitalHumanResponse> GenerateVideoAsync(DigitalHumanRequest request);

    /// <summary>Makes a video on a certain GPU.</summary>
    Task<DigitalHumanResponse> GenerateVideoAsync(DigitalHumanRequest request, int gpuId);
}

/// <summary>
/// Takes the place of a class that starts MuseTalk's Python scripts: the same two methods, but a folder instead of processes.
/// Queues, GPUs, retries and temporary files are the daemon's. Thread-safe; one instance is enough for an app.
/// </summary>
public sealed class MuseTalkService : IMuseTalkService
{
    readonly MusedropClient client;
    readonly Action<string> log;

    /// <summary>A service on a share, such as \\server\musedrop.</summary>
    /// <param name="share">The folder that holds inbox, outbox and failed.</param>
    /// <param name="log">Receives a line for each change of a job; may be null.</param>
    public MuseTalkService(string share, Action<string> log = null)
    {
        client = new MusedropClient(share);
        this.log = log ?? (line => { });
    }

    /// <inheritdoc/>
    public Task<DigitalHumanResponse> GenerateVideoAsync(DigitalHumanRequest request)
    {
        return client.GenerateVideoAsync(request, new Lines(log), CancellationToken.None);
    }

    /// <inheritdoc/>
    public Task<DigitalHumanResponse> GenerateVideoAsync(DigitalHumanRequest request, int gpuId)
    {
        return client.GenerateVideoAsync(request, gpuId, new Lines(log), CancellationToken.None);
    }

    sealed class Lines : IProgress<JobProgress>
    {
        readonly Action<string> log;

        public Lines(Action<string> log)
        {
            this.log = log;
        }

        public void Report(JobProgress news)
        {
            log(news.ToString());
        }
    }
}
