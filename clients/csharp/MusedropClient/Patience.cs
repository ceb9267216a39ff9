using System;
using System.Collections.Generic;
using System.IO;
using System.Threading;
using System.Threading.Tasks;

namespace Musedrop
{
    /// <summary>How long a client waits for what.</summary>
    public sealed class MusedropOptions
    {
        /// <summary>Between two looks at the share. Default: half a second.</summary>
        public TimeSpan PollInterval { get; set; }
        /// <summary>How long a job file may lie in the inbox before it is taken back, because no daemon seems to run. Default: two minutes.</summary>
        public TimeSpan PickupTimeout { get; set; }
        /// <summary>How long the share may be away while a job is waited for. Default: five minutes.</summary>
        public TimeSpan UnreachableTimeout { get; set; }
        /// <summary>How long a job is waited for in all. Default: <see cref="Timeout.InfiniteTimeSpan"/>.</summary>
        public TimeSpan WaitTimeout { get; set; }

        /// <summary>The defaults.</summary>
        public MusedropOptions()
        {
            PollInterval = TimeSpan.FromSeconds(0.5);
            PickupTimeout = TimeSpan.FromMinutes(2);
            UnreachableTimeout = TimeSpan.FromMinutes(5);
            WaitTimeout = Timeout.InfiniteTimeSpan;
        }
    }

    /// <summary>Decides when to stop waiting, and why. Takes the time as an argument.</summary>
    internal sealed class Patience
    {
        static readonly TimeSpan ForResult = TimeSpan.FromMinutes(1);
        readonly MusedropOptions options;
        readonly Dictionary<string, TimeSpan> since = new Dictionary<string, TimeSpan>();

        public Patience(MusedropOptions options)
        {
            this.options = options;
        }

        /// <summary>The code of the error that ends the wait, or null. `now` counts from the beginning of the wait.</summary>
        public string Ended(Sighting seen, TimeSpan now)
        {
            if (Lasted(ErrorCodes.ShareUnavailable, !seen.Reachable, now, options.UnreachableTimeout)) return ErrorCodes.ShareUnavailable;
            if (Lasted(ErrorCodes.NotTaken, seen.Progress.State == JobState.Submitted, now, options.PickupTimeout)) return ErrorCodes.NotTaken;
            if (Lasted(ErrorCodes.ResultMissing, seen.Reachable && IsGone(seen), now, ForResult)) return ErrorCodes.ResultMissing;
            return Over(now, options.WaitTimeout) ? ErrorCodes.WaitTimeout : null;
        }

        static bool IsGone(Sighting seen)
        {
            return seen.Progress.State == JobState.Done || seen.Progress.State == JobState.Accepted && seen.Idle;
        }

        bool Lasted(string what, bool holds, TimeSpan now, TimeSpan limit)
        {
            if (!holds) since.Remove(what);
            else if (!since.ContainsKey(what)) since[what] = now;
            return holds && Over(now - since[what], limit);
        }

        static bool Over(TimeSpan lasted, TimeSpan limit)
        {
            return limit != Timeout.InfiniteTimeSpan && lasted >= limit;
        }
    }

    /// <summary>Rings when something appears in the folders. A hint only: on shares events get lost, so nobody relies on it.</summary>
    internal sealed class Bell : IDisposable
    {
        readonly SemaphoreSlim rung = new SemaphoreSlim(0, 1);
        readonly List<FileSystemWatcher> watchers = new List<FileSystemWatcher>();

        public Bell(params string[] folders)
        {
            foreach (var folder in folders) Watch(folder);
        }

        void Watch(string folder)
        {
            FileSystemWatcher watcher = null;
            try
            {
                watcher = new FileSystemWatcher(folder) { NotifyFilter = NotifyFilters.DirectoryName };
                watcher.Created += (sender, change) => Ring();
                watcher.Renamed += (sender, change) => Ring();
                watcher.EnableRaisingEvents = true;
                watchers.Add(watcher);
            }
            catch (Exception problem) when (IsRefusal(problem))
            {
                if (watcher != null) watcher.Dispose();
            }
        }

        static bool IsRefusal(Exception problem)
        {
            return problem is IOException || problem is ArgumentException || problem is UnauthorizedAccessException || problem is PlatformNotSupportedException;
        }

        void Ring()
        {
            try
            {
                rung.Release();
            }
            catch (SemaphoreFullException)
            {
            }
            catch (ObjectDisposedException)
            {
            }
        }

        public Task Wait(TimeSpan atMost, CancellationToken cancel)
        {
            return rung.WaitAsync(atMost, cancel);
        }

        public void Dispose()
        {
            foreach (var watcher in watchers) watcher.Dispose();
            rung.Dispose();
        }
    }
}
