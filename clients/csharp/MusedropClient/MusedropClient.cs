using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.IO;
using System.Linq;
using System.Text.RegularExpressions;
using System.Threading;
using System.Threading.Tasks;

namespace Musedrop
{
    /// <summary>
    /// Submits jobs to musedrop through a folder, local or \\server\share, and waits for their videos.
    /// It is thread-safe and may be used for many jobs at once.
    /// </summary>
    public sealed class MusedropClient
    {
        readonly ShareFolder folder;
        readonly StatusFile status;
        readonly MusedropOptions options;

        /// <summary>A client of one share.</summary>
        /// <param name="share">The folder that holds inbox, outbox and failed.</param>
        /// <param name="options">Timeouts; null for the defaults.</param>
        public MusedropClient(string share, MusedropOptions options = null)
        {
            if (share == null) throw new ArgumentNullException("share");
            this.options = options ?? new MusedropOptions();
            folder = new ShareFolder(share);
            status = new StatusFile(folder.StatusFile, TimeSpan.FromTicks(this.options.PollInterval.Ticks / 2));
        }

        /// <summary>Submits a job and waits for its end. An error of the job, its media or the share is a response, not an exception.</summary>
        /// <param name="request">Face, voice and options.</param>
        /// <param name="progress">Receives each change; may be null.</param>
        /// <param name="cancel">Cancels the job, too.</param>
        /// <returns>How the job ended.</returns>
        /// <exception cref="OperationCanceledException">The token was cancelled; so is the job, if it can be reached.</exception>
        public async Task<DigitalHumanResponse> GenerateVideoAsync(
            DigitalHumanRequest request, IProgress<JobProgress> progress = null, CancellationToken cancel = default(CancellationToken))
        {
            JobTicket ticket = null;
            try
            {
                ticket = await SubmitAsync(request, cancel).ConfigureAwait(false);
                var answer = await WaitAsync(ticket, progress, cancel).ConfigureAwait(false);
                if (answer.Error == ErrorCodes.WaitTimeout) await CancelIfPossible(ticket).ConfigureAwait(false);
                return answer;
            }
            catch (MusedropException problem)
            {
                return Answers.FromCode(problem.Code, problem.Message, problem.Hint);
            }
            catch (OperationCanceledException)
            {
                if (ticket != null) await CancelIfPossible(ticket).ConfigureAwait(false);
                throw;
            }
        }

        /// <summary>
        /// For apps that choose a GPU for each video. The daemon chooses the devices itself, so the number has no effect;
        /// <see cref="DigitalHumanResponse.Notes"/> says so.
        /// </summary>
        /// <param name="request">Face, voice and options.</param>
        /// <param name="gpuId">The number of a GPU; ignored.</param>
        /// <param name="progress">Receives each change; may be null.</param>
        /// <param name="cancel">Cancels the job, too.</param>
        /// <returns>How the job ended.</returns>
        public async Task<DigitalHumanResponse> GenerateVideoAsync(
            DigitalHumanRequest request, int gpuId, IProgress<JobProgress> progress = null, CancellationToken cancel = default(CancellationToken))
        {
            var answer = await GenerateVideoAsync(request, progress, cancel).ConfigureAwait(false);
            answer.Notes.Add("gpuId " + gpuId + " was ignored: the daemon chooses the devices.");
            return answer;
        }

        // submitting

        /// <summary>Copies the media, then the job file into the inbox, each atomically.</summary>
        /// <param name="request">Face, voice and options.</param>
        /// <param name="cancel">Stops the copying; copied files are removed.</param>
        /// <returns>The name and id of the job.</returns>
        /// <exception cref="MusedropException">The request is invalid, or the share is not writable.</exception>
        public JobTicket Submit(DigitalHumanRequest request, CancellationToken cancel = default(CancellationToken))
        {
            if (!folder.Reachable) throw CreateUnreachableError(null);
            try
            {
                return SubmitJob(new JobFile(request, folder.Inbox), cancel);
            }
            catch (IOException problem)
            {
                throw CreateUnreachableError(problem);
            }
            catch (UnauthorizedAccessException problem)
            {
                throw CreateUnreachableError(problem);
            }
        }

        /// <summary><see cref="Submit"/> on another thread.</summary>
        /// <param name="request">Face, voice and options.</param>
        /// <param name="cancel">Stops the copying; copied files are removed.</param>
        /// <returns>The name and id of the job.</returns>
        public Task<JobTicket> SubmitAsync(DigitalHumanRequest request, CancellationToken cancel = default(CancellationToken))
        {
            return Task.Run(() => Submit(request, cancel), cancel);
        }

        JobTicket SubmitJob(JobFile job, CancellationToken cancel)
        {
            var text = job.Serialize();
            var present = JobWatcher.ListExisting(folder, status, job.Name, job.Id);
            var copied = new List<string>();
            try
            {
                foreach (var copy in job.Copies)
                    if (folder.CopyMedia(copy.Value, copy.Key, cancel)) copied.Add(copy.Key);
                return new JobTicket(folder.WriteJobFile(job.Name, text), job.Id, copied, present);
            }
            catch
            {
                foreach (var name in copied) ShareFolder.Discard(Path.Combine(folder.Inbox, name));
                throw;
            }
        }

        MusedropException CreateUnreachableError(Exception cause)
        {
            var why = cause == null ? "" : ": " + cause.Message;
            var message = "the inbox " + folder.Inbox + " can't be used" + why;
            return new MusedropException(ErrorCodes.ShareUnavailable, message, "Check the path, the network and the right to write there.", cause);
        }

        // waiting

        /// <summary>Waits for the end of a job. It polls the share; file system events only shorten the wait.</summary>
        /// <param name="ticket">A ticket of this client, or one made of a name and an id.</param>
        /// <param name="progress">Receives each change; may be null.</param>
        /// <param name="cancel">Ends the wait; the job continues.</param>
        /// <returns>How the job ended, or why the wait ended.</returns>
        /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
        public async Task<DigitalHumanResponse> WaitAsync(
            JobTicket ticket, IProgress<JobProgress> progress = null, CancellationToken cancel = default(CancellationToken))
        {
            if (ticket == null) throw new ArgumentNullException("ticket");
            var watcher = new JobWatcher(folder, status, ticket);
            var policy = new WaitPolicy(options);
            var clock = Stopwatch.StartNew();
            var told = "";
            using (var folders = new FolderWatcher(folder.Outbox, folder.Failed))
                while (true)
                {
                    var snapshot = await Task.Run(() => watcher.ReadSnapshot(), cancel).ConfigureAwait(false);
                    if (snapshot.Response != null) return snapshot.Response;
                    told = ReportIfChanged(progress, snapshot.Progress, told);
                    var answer = CreateTimeoutAnswer(policy.FindTimeout(snapshot, clock.Elapsed), ticket);
                    if (answer != null) return answer;
                    await folders.Wait(options.PollInterval, cancel).ConfigureAwait(false);
                }
        }

        /// <summary><see cref="WaitAsync"/>, blocking.</summary>
        /// <param name="ticket">A ticket of this client, or one made of a name and an id.</param>
        /// <param name="progress">Receives each change, on another thread; may be null.</param>
        /// <param name="cancel">Ends the wait; the job continues.</param>
        /// <returns>How the job ended, or why the wait ended.</returns>
        public DigitalHumanResponse Wait(JobTicket ticket, IProgress<JobProgress> progress = null, CancellationToken cancel = default(CancellationToken))
        {
            return Task.Run(() => WaitAsync(ticket, progress, cancel)).GetAwaiter().GetResult();
        }

        static string ReportIfChanged(IProgress<JobProgress> progress, JobProgress news, string told)
        {
            var line = news + " " + news.DaemonRunning;
            if (progress != null && line != told) progress.Report(news);
            return line;
        }

        /// <summary>Returns the response for a wait that ends by `code`; null if the wait goes on.</summary>
        DigitalHumanResponse CreateTimeoutAnswer(string code, JobTicket ticket)
        {
            if (code == null || code == ErrorCodes.NotTaken && !folder.TakeBack(ticket)) return null;
            return Answers.FromCode(code, DescribeReason(code), SuggestAction(code));
        }

        string DescribeReason(string code)
        {
            switch (code)
            {
                case ErrorCodes.NotTaken: return "no daemon claimed the job within " + FormatSeconds(options.PickupTimeout) + DescribeProblems();
                case ErrorCodes.ShareUnavailable: return "the share was unreachable for " + FormatSeconds(options.UnreachableTimeout);
                case ErrorCodes.ResultMissing: return "the daemon has no unfinished jobs, and the job's result is not in " + folder.Outbox;
                default: return "the job had not ended within " + FormatSeconds(options.WaitTimeout);
            }
        }

        static string SuggestAction(string code)
        {
            switch (code)
            {
                case ErrorCodes.NotTaken: return "Start the daemon of this share (musedrop run), then try again.";
                case ErrorCodes.ShareUnavailable: return "The job may continue: wait for it again when the share is reachable.";
                case ErrorCodes.ResultMissing: return "It may have been moved, or there is no job of that name and id.";
                default: return "Allow more time, or see what it waits for.";
            }
        }

        static string FormatSeconds(TimeSpan time)
        {
            return string.Format("{0:0.#} s", time.TotalSeconds);
        }

        string DescribeProblems()
        {
            var record = status.Read();
            if (record == null) return "; there is no status.json";
            if (!record.GetObject("daemon").GetBool("running")) return "; it was stopped";
            return string.Concat(record.GetStrings("problems").Select(problem => "; " + problem));
        }

        // cancelling

        /// <summary>Cancels a job in any state: removes its file if the daemon has not claimed it, else writes a .cancel file.</summary>
        /// <param name="ticket">A ticket of this client, or one made of a name and an id.</param>
        /// <exception cref="MusedropException">The share is not writable.</exception>
        public void Cancel(JobTicket ticket)
        {
            if (ticket == null) throw new ArgumentNullException("ticket");
            if (!folder.Reachable) throw CreateUnreachableError(null);
            try
            {
                if (!folder.TakeBack(ticket)) folder.WriteCancelFile(IsFileName(ticket.Id) ? ticket.Id : ticket.Name);
            }
            catch (IOException problem)
            {
                throw CreateUnreachableError(problem);
            }
            catch (UnauthorizedAccessException problem)
            {
                throw CreateUnreachableError(problem);
            }
        }

        /// <summary><see cref="Cancel"/> on another thread.</summary>
        /// <param name="ticket">A ticket of this client, or one made of a name and an id.</param>
        public Task CancelAsync(JobTicket ticket)
        {
            return Task.Run(() => Cancel(ticket));
        }

        async Task CancelIfPossible(JobTicket ticket)
        {
            try
            {
                await CancelAsync(ticket).ConfigureAwait(false);
            }
            catch (MusedropException)
            {
            }
        }

        /// <summary>Whether an id, which the caller may have chosen, can be the name of a control file.</summary>
        static bool IsFileName(string id)
        {
            return Regex.IsMatch(id, "^[A-Za-z0-9][A-Za-z0-9_-]{3,99}$");
        }
    }
}
