using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.IO;
using System.Linq;

namespace Musedrop
{
    /// <summary>status.json, read at most once in a while however many jobs are waited for.</summary>
    internal sealed class StatusFile
    {
        readonly object gate = new object();
        readonly string path;
        readonly TimeSpan freshness;
        readonly Stopwatch age = new Stopwatch();
        Fields last;

        public StatusFile(string path, TimeSpan freshness)
        {
            this.path = path;
            this.freshness = freshness;
        }

        /// <summary>What it said last; null if it never could be read.</summary>
        public Fields Read()
        {
            lock (gate)
            {
                if (age.IsRunning && age.Elapsed < freshness) return last;
                last = Records.Read(path) ?? last;
                age.Restart();
                return last;
            }
        }
    }

    /// <summary>One look at the share for one job: how it ended, or else where it is.</summary>
    internal sealed class Sighting
    {
        public DigitalHumanResponse Response;
        public JobProgress Progress;
        public bool Reachable;
        /// <summary>The daemon says that it has nothing to do.</summary>
        public bool Idle;
    }

    /// <summary>Finds out about one job. What it finds is known by the id in it: names may have been taken, folders and rows may be old.</summary>
    internal sealed class Lookout
    {
        readonly ShareFolder folder;
        readonly StatusFile status;
        readonly JobTicket ticket;
        readonly HashSet<string> foreign;

        public Lookout(ShareFolder folder, StatusFile status, JobTicket ticket)
        {
            this.folder = folder;
            this.status = status;
            this.ticket = ticket;
            foreign = new HashSet<string>(ticket.Earlier, StringComparer.OrdinalIgnoreCase);
        }

        /// <summary>What is there before a job is handed in, and so can't be of it.</summary>
        public static ICollection<string> Present(ShareFolder folder, StatusFile status, string name, string id)
        {
            var said = status.Read() ?? new Fields(null);
            var uids = said.Rows("recent").Concat(said.Rows("running")).Where(row => row.Text("id") == id).Select(row => row.Words("uid"));
            return uids.Concat(Records.FoldersLike(folder.Outbox, name)).Concat(Records.FoldersLike(folder.Failed, name)).ToList();
        }

        public Sighting Look()
        {
            var said = status.Read() ?? new Fields(null);
            var row = RowOf(said);
            var progress = ProgressOf(said, row);
            var answer = Published() ?? Failure() ?? EndOf(row);
            return new Sighting { Response = answer, Progress = progress, Reachable = folder.Reachable, Idle = IsIdle(said) };
        }

        /// <summary>The job's row; a running one goes before a finished one, for it may have been retried.</summary>
        Fields RowOf(Fields said)
        {
            var rows = said.Rows("running").Concat(said.Rows("recent"));
            return rows.FirstOrDefault(row => row.Text("id") == ticket.Id && !foreign.Contains(row.Words("uid")));
        }

        static bool IsIdle(Fields said)
        {
            var counts = said.Inner("counts");
            return counts.All.Count > 0 && new[] { "waiting", "queued", "running" }.All(state => counts.Whole(state) == 0);
        }

        // how it ended

        DigitalHumanResponse Published()
        {
            var path = Own(folder.Outbox, "result.json");
            return path == null ? null : Answers.OfResult(path, Records.Read(path));
        }

        DigitalHumanResponse Failure()
        {
            var path = Own(folder.Failed, "error.json");
            var record = path == null ? null : Records.Read(path);
            return record == null ? null : Answers.OfError(record, record.Text("code"), record.Words("message"), record.Words("hint"));
        }

        /// <summary>The files of a failed job follow its row a moment later; those of an earlier result may bear another name.</summary>
        DigitalHumanResponse EndOf(Fields row)
        {
            var state = row == null ? "" : row.Words("state");
            if (ticket.TakenBack) return Answers.Without("cancelled", "the job was taken back before the daemon took it", "");
            if (state == "cancelled") return Answers.OfError(row, "cancelled", "the job was cancelled", "");
            if (state == "failed") return Answers.OfError(row, row.Text("error_code"), row.Words("error_message"), row.Words("error_hint"));
            if (state != "done") return null;
            var path = Path.Combine(folder.Outbox, row.Words("result"), "result.json");
            var record = Records.Read(path);
            return record != null && record.Text("id") == ticket.Id ? Answers.OfResult(path, record) : null;
        }

        /// <summary>The record of the job in one of the folders it may have got there; each foreign one is read once.</summary>
        string Own(string parent, string file)
        {
            foreach (var place in Records.FoldersOf(parent, ticket.Name).Where(place => !foreign.Contains(place)))
            {
                var path = Path.Combine(place, file);
                var record = Records.Read(path);
                if (record != null && record.Text("id") == ticket.Id) return path;
                if (record != null) foreign.Add(place);
            }
            return null;
        }

        // where it is

        JobProgress ProgressOf(Fields said, Fields row)
        {
            var queued = row == null ? QueuedRow(said) : null;
            var made = new JobProgress { State = StateOf(row ?? queued), DaemonRunning = said.Inner("daemon").Flag("running") };
            if (queued != null) made.Position = queued.Whole("position");
            made.WaitingFor = (row ?? queued ?? new Fields(null)).Words("waiting_for");
            if (made.State != JobState.Running) return made;
            made.Stage = row.Words("stage");
            made.Percent = row.Real("percent");
            made.UnitsDone = row.Whole("units_done");
            made.UnitsTotal = row.Whole("units_total");
            return made;
        }

        /// <summary>By the id, where the queue tells it; else by the name.</summary>
        Fields QueuedRow(Fields said)
        {
            return said.Rows("queue").FirstOrDefault(row => (row.Text("id") ?? ticket.Id) == ticket.Id && row.Text("name") == ticket.Name);
        }

        JobState StateOf(Fields row)
        {
            JobState state;
            if (row != null && Enum.TryParse(row.Words("state"), true, out state)) return state;
            return folder.IsSubmitted(ticket.Name) ? JobState.Submitted : JobState.Accepted;
        }
    }

    /// <summary>Records of the share as answers.</summary>
    internal static class Answers
    {
        const double LongestSeconds = 1e9;

        /// <summary>Null while there is no record, or no video beside it.</summary>
        public static DigitalHumanResponse OfResult(string path, Fields record)
        {
            if (record == null) return null;
            var video = Path.Combine(Path.GetDirectoryName(path), Path.GetFileName(record.Text("video") ?? "result.mp4"));
            if (!File.Exists(video)) return null;
            var made = Ended(record);
            made.Success = true;
            made.VideoPath = video;
            made.Duration = TimeSpan.FromSeconds(Math.Min(Math.Max(0, record.Real("duration_s")), LongestSeconds));
            made.FromCache = record.Flag("from_cache");
            return made;
        }

        public static DigitalHumanResponse OfError(Fields record, string code, string message, string hint)
        {
            return Failed(Ended(record), code ?? "internal", message, hint);
        }

        public static DigitalHumanResponse Without(string code, string message, string hint)
        {
            return Failed(new DigitalHumanResponse(), code, message, hint);
        }

        static DigitalHumanResponse Failed(DigitalHumanResponse made, string code, string message, string hint)
        {
            made.Error = code;
            made.ErrorKind = ErrorCodes.KindOf(code);
            made.Message = message;
            made.Hint = hint;
            return made;
        }

        static DigitalHumanResponse Ended(Fields record)
        {
            DateTime? started = record.Time("started_at"), finished = record.Time("finished_at");
            var took = started != null && finished > started ? finished.Value - started.Value : TimeSpan.Zero;
            return new DigitalHumanResponse { CompletedAt = finished, ProcessingTime = took, Metadata = record.All };
        }
    }
}
