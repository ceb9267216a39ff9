using System;
using System.Collections.Generic;

namespace Musedrop
{
    /// <summary>Where a job is.</summary>
    public enum JobState
    {
        /// <summary>Its file lies in the inbox; the daemon has not taken it.</summary>
        Submitted,
        /// <summary>The daemon has taken it; nothing more is known yet.</summary>
        Accepted,
        /// <summary>Its media have not all arrived.</summary>
        Waiting,
        /// <summary>It waits for a free device.</summary>
        Queued,
        /// <summary>It runs.</summary>
        Running,
        /// <summary>There is a video.</summary>
        Done,
        /// <summary>It failed.</summary>
        Failed,
        /// <summary>Somebody cancelled it.</summary>
        Cancelled
    }

    /// <summary>What the daemon tells of an unfinished job. Values never change; each report is a new object.</summary>
    public sealed class JobProgress
    {
        /// <summary>Where the job is.</summary>
        public JobState State { get; internal set; }
        /// <summary>What is done while it runs: inspect, prepare, render, assemble or publish; else empty.</summary>
        public string Stage { get; internal set; }
        /// <summary>0 to 100.</summary>
        public double Percent { get; internal set; }
        /// <summary>Units of the stage that are done: frames, while it renders.</summary>
        public long UnitsDone { get; internal set; }
        /// <summary>Units of the stage.</summary>
        public long UnitsTotal { get; internal set; }
        /// <summary>Place in the queue, from 1; 0 if it isn't in the queue, or too far behind to be listed.</summary>
        public long Position { get; internal set; }
        /// <summary>What it waits for, in words; else empty.</summary>
        public string WaitingFor { get; internal set; }
        /// <summary>Whether status.json says that the daemon runs. After a crash it says so, too.</summary>
        public bool DaemonRunning { get; internal set; }

        internal JobProgress()
        {
            Stage = "";
            WaitingFor = "";
        }

        /// <summary>One line for people.</summary>
        public override string ToString()
        {
            if (State == JobState.Running) return string.Format("{0} {1:0} % ({2} of {3})", Stage, Percent, UnitsDone, UnitsTotal);
            if (State == JobState.Queued && Position > 0) return "queued, place " + Position;
            if (WaitingFor.Length > 0) return State.ToString().ToLowerInvariant() + ": " + WaitingFor;
            return State.ToString().ToLowerInvariant();
        }
    }

    /// <summary>A job that was handed in. Keep name and id to ask for it again after a restart of your program.</summary>
    public sealed class JobTicket
    {
        /// <summary>The job's name, which is the name of its file; its result's folder is called so, or NAME-2 where that was taken.</summary>
        public string Name { get; private set; }
        /// <summary>The id in the job file, by which the result is found.</summary>
        public string Id { get; private set; }

        /// <summary>What was copied into the inbox for it.</summary>
        internal readonly ICollection<string> Media;
        /// <summary>Folders and uids that were there before it, and so are of others.</summary>
        internal readonly ICollection<string> Earlier;
        internal volatile bool TakenBack;

        /// <summary>A ticket for a job that was handed in before.</summary>
        /// <param name="name">The job's name.</param>
        /// <param name="id">The id (or CacheKey) in the job file.</param>
        public JobTicket(string name, string id) : this(name, id, new string[0], new string[0])
        {
        }

        internal JobTicket(string name, string id, ICollection<string> media, ICollection<string> earlier)
        {
            if (name == null) throw new ArgumentNullException("name");
            if (id == null) throw new ArgumentNullException("id");
            Name = name;
            Id = id;
            Media = media;
            Earlier = earlier;
        }
    }
}
