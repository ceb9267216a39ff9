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
    /// Hands jobs to musedrop through a folder and waits for their videos. Needs nothing but the folder, local or \\server\share;
    /// may be used by many threads and for many jobs at once.
    /// </summary>
    public sealed class MusedropClient
    {
        readonly ShareFolder folder;
        readonly StatusFile status;
        readonly MusedropOptions options;

        /// <summary>A client of one share.</summary>
        /// <param name="share">The folder that holds inbox, outbox and failed.</param>
        /// <param name="options">How long to wait for what; null for the defaults.</param>
        public MusedropClient(string share, MusedropOptions options = null)
        {
            if (share == null) throw new ArgumentNullException("share");
            this.options = options ?? new MusedropOptions();
            folder = new ShareFolder(share);
            status = new StatusFile(folder.StatusFile, TimeSpan.FromTicks(this.options.PollInterval.Ticks / 2));
        }

        /// <summary>Hand in a job and wait for its end. An error of the job, its media or the share is an answer, not an exception.</summary>
        /// <param name="request">Face, voice and wishes.</param>
        /// <param name="progress">Told when something changes; may be null.</param>
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
                return Answers.Without(problem.Code, problem.Message, problem.Hint);
            }
            catch (OperationCanceledException)
            {
                if (ticket != null) await CancelIfPossible(ticket).ConfigureAwait(false);
                throw;
            }
        }

        // handing in

        /// <summary>Copy the media and then the job file into the inbox, each visible only when it is whole.</summary>
        /// <param name="request">Face, voice and wishes.</param>
        /// <param name="cancel">Stops the copying; what was copied is removed.</param>
        /// <returns>What the job is found by.</returns>
        /// <exception cref="MusedropException">The request can't become a job, or the share can't be written.</exception>
        public JobTicket Submit(DigitalHumanRequest request, CancellationToken cancel = default(CancellationToken))
        {
            if (!folder.Reachable) throw Unreachable(null);
            try
            {
                return HandIn(new JobFile(request, folder.Inbox), cancel);
            }
            catch (IOException problem)
            {
                throw Unreachable(problem);
            }
            catch (UnauthorizedAccessException problem)
            {
                throw Unreachable(problem);
            }
        }

        /// <summary><see cref="Submit"/> on another thread.</summary>
        /// <param name="request">Face, voice and wishes.</param>
        /// <param name="cancel">Stops the copying; what was copied is removed.</param>
        /// <returns>What the job is found by.</returns>
        public Task<JobTicket> SubmitAsync(DigitalHumanRequest request, CancellationToken cancel = default(CancellationToken))
        {
            return Task.Run(() => Submit(request, cancel), cancel);
        }

        JobTicket HandIn(JobFile job, CancellationToken cancel)
        {
            var text = job.Text();
            var present = Lookout.Present(folder, status, job.Name, job.Id);
            var copied = new List<string>();
            try
            {
                foreach (var copy in job.Copies)
                    if (folder.PutMedium(copy.Value, copy.Key, cancel)) copied.Add(copy.Key);
                return new JobTicket(folder.PutJob(job.Name, text), job.Id, copied, present);
            }
            catch
            {
                foreach (var name in copied) ShareFolder.Discard(Path.Combine(folder.Inbox, name));
                throw;
            }
        }

        MusedropException Unreachable(Exception cause)
        {
            var why = cause == null ? "" : ": " + cause.Message;
            var message = "the inbox " + folder.Inbox + " can't be used" + why;
            return new MusedropException(ErrorCodes.ShareUnavailable, message, "Check the path, the network and the right to write there.", cause);
        }

        // waiting

        /// <summary>Wait for the end of a job. It looks again and again; events of the file system only make it look sooner.</summary>
        /// <param name="ticket">A ticket of this client, or one made of a name and an id.</param>
        /// <param name="progress">Told when something changes; may be null.</param>
        /// <param name="cancel">Ends the wait; the job goes on.</param>
        /// <returns>How the job ended, or why it is waited for no longer.</returns>
        /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
        public async Task<DigitalHumanResponse> WaitAsync(
            JobTicket ticket, IProgress<JobProgress> progress = null, CancellationToken cancel = default(CancellationToken))
        {
            if (ticket == null) throw new ArgumentNullException("ticket");
            var lookout = new Lookout(folder, status, ticket);
            var patience = new Patience(options);
            var clock = Stopwatch.StartNew();
            var told = "";
            using (var bell = new Bell(folder.Outbox, folder.Failed))
                while (true)
                {
                    var seen = await Task.Run(() => lookout.Look(), cancel).ConfigureAwait(false);
                    var answer = seen.Response ?? GiveUp(patience.Ended(seen, clock.Elapsed), ticket);
                    if (answer != null) return answer;
                    told = Tell(progress, seen.Progress, told);
                    await bell.Wait(options.PollInterval, cancel).ConfigureAwait(false);
                }
        }

        /// <summary><see cref="WaitAsync"/>, blocking.</summary>
        /// <param name="ticket">A ticket of this client, or one made of a name and an id.</param>
        /// <param name="progress">Told when something changes, on another thread; may be null.</param>
        /// <param name="cancel">Ends the wait; the job goes on.</param>
        /// <returns>How the job ended, or why it is waited for no longer.</returns>
        public DigitalHumanResponse Wait(JobTicket ticket, IProgress<JobProgress> progress = null, CancellationToken cancel = default(CancellationToken))
        {
            return Task.Run(() => WaitAsync(ticket, progress, cancel)).GetAwaiter().GetResult();
        }

        static string Tell(IProgress<JobProgress> progress, JobProgress news, string told)
        {
            var line = news + " " + news.DaemonRunning;
            if (progress != null && line != told) progress.Report(news);
            return line;
        }

        /// <summary>An answer for a wait that ends without the job's; null if it goes on.</summary>
        DigitalHumanResponse GiveUp(string code, JobTicket ticket)
        {
            if (code == null || code == ErrorCodes.NotTaken && !folder.TakeBack(ticket)) return null;
            return Answers.Without(code, Reason(code), Advice(code));
        }

        string Reason(string code)
        {
            switch (code)
            {
                case ErrorCodes.NotTaken: return "no daemon took the job within " + Words(options.PickupTimeout) + Problems();
                case ErrorCodes.ShareUnavailable: return "the share was away for " + Words(options.UnreachableTimeout);
                case ErrorCodes.ResultMissing: return "the daemon has nothing left to do, and the job's result is not in " + folder.Outbox;
                default: return "the job had not ended within " + Words(options.WaitTimeout);
            }
        }

        static string Advice(string code)
        {
            switch (code)
            {
                case ErrorCodes.NotTaken: return "Start the daemon of this share (musedrop run), then try again.";
                case ErrorCodes.ShareUnavailable: return "The job may go on: wait for it again when the share is back.";
                case ErrorCodes.ResultMissing: return "Somebody may have moved it, or name and id are not those of a job.";
                default: return "Allow more time, or see what it waits for.";
            }
        }

        static string Words(TimeSpan time)
        {
            return string.Format("{0:0.#} s", time.TotalSeconds);
        }

        string Problems()
        {
            var said = status.Read();
            if (said == null) return "; there is no status.json";
            if (!said.Inner("daemon").Flag("running")) return "; it was stopped";
            return string.Concat(said.Texts("problems").Select(problem => "; " + problem));
        }

        // cancelling

        /// <summary>Cancel a job in whatever state it is: taken back if the daemon has not taken it, else the daemon is told.</summary>
        /// <param name="ticket">A ticket of this client, or one made of a name and an id.</param>
        /// <exception cref="MusedropException">The share can't be written.</exception>
        public void Cancel(JobTicket ticket)
        {
            if (ticket == null) throw new ArgumentNullException("ticket");
            if (!folder.Reachable) throw Unreachable(null);
            try
            {
                if (!folder.TakeBack(ticket)) folder.LeaveCancel(IsFileName(ticket.Id) ? ticket.Id : ticket.Name);
            }
            catch (IOException problem)
            {
                throw Unreachable(problem);
            }
            catch (UnauthorizedAccessException problem)
            {
                throw Unreachable(problem);
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

        /// <summary>Ids are ours or the caller's; only a plain one can be the name of a control file.</summary>
        static bool IsFileName(string id)
        {
            return Regex.IsMatch(id, "^[A-Za-z0-9][A-Za-z0-9_-]{3,99}$");
        }
    }
}
